"""A simulated job with given gradients, to measure the exchange and its memories alone."""

import math
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from laconic.contract import Algorithm, ModelSpec
from laconic.drivers.simulated.arrivals import SimulatedArrivals
from laconic.drivers.simulated.rounds import Simulated
from laconic.protocol.round_inputs import Inputs
from laconic.training.vector_sources import VectorCopy

N_GRADIENTS = 3  # used in turn
_LR = 0.01


def sample_spec(algorithm: Algorithm, d: int, n_workers: int) -> ModelSpec:
    """Return one vector of `d` parameters, or a matrix and a rest where the method refuses a model without matrices."""
    vector = ModelSpec.of_sizes(d)
    rows = math.isqrt(d)
    columns = d // rows
    matrix = ModelSpec.of_shapes((rows, columns), (d - rows * columns,))
    for spec in (vector, matrix):
        with suppress(ValueError):
            algorithm.check_size(spec, n_workers)
            return spec
    return vector


class GivenJob:
    """Workers with random gradients and constant parameters."""

    def __init__(self, algorithm: Algorithm, *, workers: int, d: int) -> None:
        """Make the job.

        Args:
            algorithm: The method.
            workers: The number of workers.
            d: The number of parameters.

        Raises:
            ValueError: The method refuses this size.
        """
        random = torch.Generator().manual_seed(0)
        self._gradients = [torch.randn(d, generator=random) for _ in range(N_GRADIENTS)]
        self._parameters = torch.zeros(d)
        self._n_given = 0
        given: dict[str, Any] = {
            "spec": sample_spec(algorithm, d, workers),
            "n_workers": workers,
            "descend": lambda direction, largest=None: -_LR * direction,
        }
        self._driver: Simulated
        if algorithm.is_asynchronous:
            self._driver = SimulatedArrivals(algorithm, parameters=torch.zeros(d), **given)
        else:
            self._driver = Simulated(algorithm, sparse_results=True, **given)

    def round(self) -> None:
        """Run one round and reclaim its results."""
        self._driver.round(self._inputs, _LR)
        self._driver.reclaim()

    def _inputs(self, rank: int) -> Inputs:
        self._n_given += 1
        gradient = self._gradients[self._n_given % N_GRADIENTS]
        # With a single vector the momentum would soon overflow.
        other = self._gradients[(self._n_given + 1) % N_GRADIENTS]

        def gradient_at(parameters: Tensor) -> Tensor:
            return other

        return Inputs(vector=VectorCopy([gradient]), parameters=self._parameters, gradient_at=gradient_at)

    def remembered(self) -> dict[tuple[str, int, str], Tensor]:
        """Return the tensors in the memories, by side ("worker" or "server"), number and name.

        A tensor that two memories share is listed for both.
        """
        workers = [session.me.memory for session in self._driver.workers]
        servers = [session.view.memory for session in self._driver.servers]
        return {
            (side, number, name): value
            for side, memories in (("worker", workers), ("server", servers))
            for number, memory in enumerate(memories)
            for name, value in memory.saved().items()
        }
