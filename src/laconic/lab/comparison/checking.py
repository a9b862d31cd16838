"""All that can be wrong with the cells of a comparison, looked for before the first one is trained."""

from collections.abc import Sequence
from typing import Protocol

from laconic.errors import OptionError
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings
from laconic.lab.tasks.examples import ClassifierTask
from laconic.lab.tasks.task import Task

_VECTORS = 10
"""Vectors of all parameters that a simulation holds beside its workers' memories: model, gradient, buffers."""
_OF_A_WORKER = 2  # vectors, beside its memories


class Checked(Protocol):
    """A cell, of a comparison or of a published item."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def kind(self) -> str:
        """What cells have in common that take about the same time and memory."""

    @property
    def settings(self) -> RunSettings:
        """The options of its run."""


def check_cells(cells: Sequence[Checked]) -> dict[str, int]:
    """Read the data and make the models of the cells, one of each kind.

    Returns:
        By kind, an estimate of the bytes that a cell takes in memory.

    Raises:
        OptionError: A cell is no simulated run.
        ValueError: Data or sizes do not fit the method of a cell, which the message names.
    """
    estimates: dict[str, int] = {}
    for cell in cells:
        if cell.kind in estimates:
            continue
        try:
            estimates[cell.kind] = _estimate(Experiment(cell.settings))
        except OptionError as error:
            raise OptionError(*error.args, f" (of {cell.name})") from None
        except ValueError as error:
            raise type(error)(f"{cell.name}: {error}") from None
    return estimates


def _estimate(experiment: Experiment) -> int:
    workers, slots = experiment.settings.workers, experiment.algorithm.worker_slots.values()
    of_workers = workers * (_OF_A_WORKER + sum(slot.length == "d" for slot in slots))
    return _bytes_of_data(experiment.task) + 4 * experiment.spec.d * (_VECTORS + of_workers)


def _bytes_of_data(task: Task) -> int:
    """Return the bytes of a task's examples; 0 where it is another's to know."""
    if not isinstance(task, ClassifierTask):
        return 0
    data = task.dataset
    tensors = (data.train_inputs, data.train_labels, data.test_inputs, data.test_labels)
    return sum(each.numel() * each.element_size() for each in tensors)
