"""Tasks by name: each owns data, model, loss and metric."""

from laconic.lab.tasks.convex import ConvexTask, Logistic, Ridge
from laconic.lab.tasks.examples import ClassifierTask
from laconic.lab.tasks.kinds import TASKS, Classifier, LanguageModel
from laconic.lab.tasks.own import ExampleTask, OwnKind, OwnTask
from laconic.lab.tasks.quadratic import Quadratic, QuadraticTask
from laconic.lab.tasks.task import Bounds, Judgement, Shares, Task

__all__ = [
    "TASKS",
    "Bounds",
    "Classifier",
    "ClassifierTask",
    "ConvexTask",
    "ExampleTask",
    "Judgement",
    "LanguageModel",
    "Logistic",
    "OwnKind",
    "OwnTask",
    "Quadratic",
    "QuadraticTask",
    "Ridge",
    "Shares",
    "Task",
]  # fmt: skip
