"""The kinds of tasks, with the hyper-parameters of each."""

from dataclasses import dataclass
from typing import ClassVar

from laconic.lab.tasks.convex import Logistic, Ridge
from laconic.lab.tasks.quadratic import Quadratic


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Cross entropy of the data set's classes under a model; measured is the test accuracy."""

    has_examples: ClassVar[bool] = True
    takes_data: ClassVar[bool] = True
    takes_model: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ()
    judged_by: ClassVar[str] = "test_accuracy"


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """Cross entropy of the next character of a text; measured is the share of characters that are predicted."""

    has_examples: ClassVar[bool] = True
    takes_data: ClassVar[bool] = True
    takes_model: ClassVar[bool] = True
    columns: ClassVar[tuple[str, ...]] = ()
    judged_by: ClassVar[str] = "test_accuracy"


# Name -> kind. The first line of a kind's docstring says what is trained; its hyper-parameters are the keys of
# --task-set, `has_examples` says whether workers share examples, `takes_data` and `takes_model` whether the options of
# data and of the model are for it, `columns` names the columns of `metrics.csv` that only this kind fills, and
# `judged_by` the one that it is judged by.
TASKS: dict[str, type] = {
    "classifier": Classifier,
    "language-model": LanguageModel,
    "least-squares": Ridge,
    "logistic": Logistic,
    "quadratic": Quadratic,
}
