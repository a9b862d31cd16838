"""The mean over an epoch of the squared norm of f' at the model before each step: what theorems of SGD bound."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from laconic.lab.runs.accuracy import models_differ
from laconic.lab.runs.experiment import Experiment
from laconic.training.consensus import mean_parameters
from laconic.training.distributed_optimizer import DistributedOptimizer


class GradientNorms:
    """Adds up ||f'(x)||^2 over the steps of an epoch, if the task measures it."""

    SCHEMA: ClassVar = {"total": float, "n": range(1 << 62)}
    """What `saved` returns."""

    def __init__(self, experiment: Experiment) -> None:
        """Begin an epoch."""
        self._experiment = experiment
        self._total, self._n = 0.0, 0

    def note_simulated(self) -> None:
        """Measure before a step of a simulation, whose model is the exchanged one, or the mean of the workers'."""
        if self._experiment.task.measures_gradient:
            self._add()

    def note_of_rank(self, opt: DistributedOptimizer) -> None:
        """Measure before a step of this rank; only rank 0's is valid. Collective where models differ.

        The model of an asynchronous method is at a server, which steps while workers compute: it is not measured.
        """
        algorithm = self._experiment.algorithm
        if not self._experiment.task.measures_gradient or algorithm.is_asynchronous:
            return
        start = opt.training.start
        exchanged = opt.flat.values() if start is None else start
        if models_differ(algorithm):
            exchanged = mean_parameters(opt, exchanged)
        self._at(opt, exchanged)

    @torch.no_grad()
    def _at(self, opt: DistributedOptimizer, parameters: Tensor) -> None:
        here = opt.flat.values()
        opt.flat.set_values(parameters)
        self._add()
        opt.flat.set_values(here)

    def _add(self) -> None:
        self._total += self._experiment.task.squared_gradient()
        self._n += 1

    @property
    def mean(self) -> float | None:
        """The mean over the steps of the epoch so far; None if nothing is measured."""
        return self._total / self._n if self._n else None

    def end_epoch(self) -> float | None:
        """Return the mean over the steps of the epoch, and begin another; None if nothing is measured."""
        mean = self.mean
        self._total, self._n = 0.0, 0
        return mean

    def saved(self) -> dict[str, Any]:
        """Return the sum of this epoch so far."""
        return {"total": float(self._total), "n": self._n}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `saved` returned."""
        self._total, self._n = saved["total"], saved["n"]
