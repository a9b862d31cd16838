"""Time against the copy of a vector. Machines differ in speed from minute to minute, so the two alternate."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Seconds of a function and of the copies that alternated with it."""

    seconds: tuple[float, ...]
    copy_seconds: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def copies(self) -> float:
        """Median of the function over median of the copy."""
        return self.median_s / statistics.median(self.copy_seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The function's lower and upper quartile over the copy's median."""
        if len(self.seconds) == 1:
            return self.copies, self.copies
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        copy = statistics.median(self.copy_seconds)
        return lower / copy, upper / copy


def measure(function: Callable[[], object], vector: Tensor, repeats: int) -> Measured:
    """Call `function` and copy `vector` in turns, `repeats` times, after one call each that is not counted."""
    target = torch.empty_like(vector)
    function()
    target.copy_(vector)
    seconds, copy_seconds = [], []
    for _ in range(repeats):
        copy_seconds.append(_seconds_of(lambda: target.copy_(vector)))
        seconds.append(_seconds_of(function))
    return Measured(seconds=tuple(seconds), copy_seconds=tuple(copy_seconds))


def _seconds_of(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
