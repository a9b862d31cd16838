"""One rank that trains a perceptron in DistributedDataParallel, or calls collectives, and counts what that sends."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from laconic.traffic import watch

_WIDTH = 1024
_BATCH = 32
_BUCKET_MB = 1
_N_VALUES = 1 << 20  # of a call


def _all_gather(vector: Tensor, parts: list[Tensor]) -> None:
    dist.all_gather([torch.empty_like(parts[0]) for _ in parts], parts[0])


def _gather(vector: Tensor, parts: list[Tensor]) -> None:
    dist.gather(parts[0], [torch.empty_like(part) for part in parts] if dist.get_rank() == 0 else None)


COLLECTIVES: dict[str, Callable[[Tensor, list[Tensor]], object]] = {
    "all_reduce": lambda vector, parts: dist.all_reduce(vector),
    "broadcast": lambda vector, parts: dist.broadcast(vector, 0),
    "reduce": lambda vector, parts: dist.reduce(vector, 0),
    "reduce_scatter": lambda vector, parts: dist.reduce_scatter(torch.empty_like(parts[0]), parts),
    "all_gather": _all_gather,
    "gather": _gather,
    "scatter": lambda vector, parts: dist.scatter(torch.empty_like(parts[0]), parts if dist.get_rank() == 0 else None),
    "all_to_all": lambda vector, parts: dist.all_to_all_single(torch.empty_like(vector), vector),
}
"""By name, a call with a vector, which is also there in a part for each rank."""


class WatchedRank:
    """One rank, which trains a perceptron in DistributedDataParallel."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        layers = [nn.Linear(_WIDTH, _WIDTH) for _ in range(4)]
        self.model = DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=_BUCKET_MB)
        self.opt = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.inputs = torch.randn(_BATCH, _WIDTH)

    def _steps(self, n: int) -> list[float]:
        seconds = []
        for _ in range(n):
            begun = time.perf_counter()
            self.opt.zero_grad()
            self.model(self.inputs).square().mean().backward()
            self.opt.step()
            seconds.append(time.perf_counter() - begun)
        return seconds

    def steps(self, n: int) -> dict[str, Any]:
        """Take `n` steps, watched."""
        with watch() as watched:
            self._steps(n)
        return {"sent_bytes": watched.sent_bytes, "calls": watched.total.calls}

    def collective(self, name: str, n: int) -> dict[str, Any]:
        """Make `n` calls of a kind, watched."""
        vector = torch.ones(_N_VALUES)
        parts = list(vector.chunk(dist.get_world_size()))
        with watch() as watched:
            for _ in range(n):
                COLLECTIVES[name](vector, parts)
        dist.barrier()  # hundreds of bytes: all ranks have sent what they count
        return {"sent_bytes": watched.sent_bytes, "calls": watched.total.calls}

    def costs(self, n_turns: int) -> dict[str, Any]:
        """Take steps with and without watching in turns of five; return the medians of each turn."""
        plain, seen = [], []
        for _ in range(n_turns):
            plain.append(statistics.median(self._steps(5)))
            with watch():
                seen.append(statistics.median(self._steps(5)))
        return {"plain_s": plain, "watched_s": seen}
