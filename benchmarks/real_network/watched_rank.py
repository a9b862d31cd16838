"""One rank that trains a perceptron in DistributedDataParallel, and counts what that sends."""

import statistics
import time
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from laconic.traffic import watch

_WIDTH = 1024
_BATCH = 32
_BUCKET_MB = 1


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
        return {"sent_bytes": watched.sent_bytes, "calls": watched.total.calls, "table": str(watched)}

    def costs(self, n_turns: int) -> dict[str, Any]:
        """Take steps with and without watching in turns of five; return the medians of each turn."""
        plain, seen = [], []
        for _ in range(n_turns):
            plain.append(statistics.median(self._steps(5)))
            with watch():
                seen.append(statistics.median(self._steps(5)))
        return {"plain_s": plain, "watched_s": seen}
