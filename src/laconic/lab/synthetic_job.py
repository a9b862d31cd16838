"""A simulated job that is given its gradients: the exchange alone, and what it remembers."""

from typing import Any

import torch
from torch import Tensor

from laconic.contract import Algorithm
from laconic.drivers.simulated.arrivals import SimulatedArrivals
from laconic.drivers.simulated.rounds import Simulated
from laconic.protocol.round_inputs import Inputs

N_GRADIENTS = 3  # used in turns
_LR = 0.01


class GivenJob:
    """Workers with random gradients, and parameters that stay where they are."""

    def __init__(self, algorithm: Algorithm, *, workers: int, d: int) -> None:
        """Raises ValueError for a size that the method refuses."""
        random = torch.Generator().manual_seed(0)
        self._gradients = [torch.randn(d, generator=random) for _ in range(N_GRADIENTS)]
        self._parameters = torch.zeros(d)
        self._n_given = 0
        given: dict[str, Any] = {"d": d, "n_workers": workers, "descend": lambda direction: -_LR * direction}
        self._driver: Simulated
        if algorithm.mode == "arrivals":
            self._driver = SimulatedArrivals(algorithm, parameters=torch.zeros(d), **given)
        else:
            self._driver = Simulated(algorithm, sparse_results=True, **given)

    def round(self) -> None:
        """One, after which its results may be written over."""
        self._driver.round(self._inputs)
        self._driver.reclaim()

    def _inputs(self, rank: int) -> Inputs:
        self._n_given += 1
        gradient = self._gradients[self._n_given % N_GRADIENTS]
        # A copy, for the method may write over it: with one and the same the momentum would soon overflow.
        memory = self._driver.workers[rank].me.memory
        memory.reclaim()
        vector = memory.scratch().copy_(gradient)
        other = self._gradients[(self._n_given + 1) % N_GRADIENTS]

        def gradient_at(parameters: Tensor) -> Tensor:
            return other

        return Inputs(vector=vector, parameters=lambda: self._parameters, lr=_LR, gradient_at=gradient_at)

    def remembered(self) -> dict[tuple[str, int, str], Tensor]:
        """What lies in the memories, by side ("worker", "server"), its number, and name.

        What two memories share is in both.
        """
        workers = [session.me.memory for session in self._driver.workers]
        servers = [session.view.memory for session in self._driver.servers]
        return {
            (side, number, name): value
            for side, memories in (("worker", workers), ("server", servers))
            for number, memory in enumerate(memories)
            for name, value in memory.saved().items()
        }
