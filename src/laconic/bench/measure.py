"""Times taken in turns, since a machine's speed differs from minute to minute; and what a bench found."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from laconic.bench.cases import Calls
from laconic.lab.provenance import machine, versions

_MIN_CALLS = 3
_SMALL_CALLS = 10  # to one measurement of something that takes microseconds: few, or a busy machine is in all of them
_SMALL_REPEATS = 5  # times the repeats of what takes milliseconds


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One quantity and all its measurements.

    name: what tells this row from the bench's others. unit: of the samples, of which less is better. facts: whatever
    else belongs to the row, as plain data.
    """

    name: Mapping[str, str | int | float]
    unit: str
    samples: tuple[float, ...]
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one: the spread that tables show."""
        return quartiles(self.samples)

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            **self.name, "unit": self.unit, "median": self.median, "quartiles": list(self.quartiles),
            "samples": list(self.samples), **self.details,
        }  # fmt: skip


def result_of(
    bench: str, settings: Mapping[str, Any], rows: Sequence[Measurement], left_out: Sequence[str] = ()
) -> Any:  # noqa: ANN401
    """What a bench writes to its file. left_out: what was not measured, and why. `names` are a row's naming keys."""
    return {
        "bench": bench, "settings": dict(settings), "versions": versions(), "machine": machine(),
        "names": list(dict.fromkeys(key for row in rows for key in row.name)),
        "rows": [row.figures() for row in rows], "left_out": list(left_out),
    }  # fmt: skip


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper quartile; of one sample, itself."""
    if len(samples) == 1:
        return samples[0], samples[0]
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return lower, upper


def in_turns(
    functions: Mapping[str, Callable[[], object]], repeats: int, *, limit_s: float = float("inf")
) -> dict[str, tuple[float, ...]]:
    """Call the functions in turns, `repeats` times after one call each that is not counted: seconds, by name.

    One that has taken `limit_s` altogether is called no more, but three times at least.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            if len(seconds[name]) < _MIN_CALLS or sum(seconds[name]) < limit_s:
                seconds[name].append(seconds_of(function))
    return {name: tuple(taken) for name, taken in seconds.items()}


def seconds_of(function: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def small_seconds(function: Callable[[], object], repeats: int) -> tuple[float, ...]:
    """Of one call that takes microseconds: means over a few calls, some times `repeats` of them."""

    def calls() -> None:
        for _ in range(_SMALL_CALLS):
            function()

    return tuple(taken / _SMALL_CALLS for taken in in_turns({"": calls}, _SMALL_REPEATS * repeats)[""])


def over(samples: Iterable[float], divisor: float) -> tuple[float, ...]:
    """Each sample over one number, such as the median time of a copy."""
    return tuple(sample / divisor for sample in samples)


LIMIT_S = 4.0  # of calling one function: plain torch takes a second for what takes a kernel milliseconds


def vector_of(d: int) -> torch.Tensor:
    """The numbers that all kernels are given, (d,)."""
    return torch.randn(d, generator=torch.Generator().manual_seed(0))


def in_copies(calls: Calls, vector: torch.Tensor, repeats: int) -> tuple[dict[str, tuple[float, ...]], float]:
    """Calls in turns with a copy of `vector`: multiples of the copy's median by name, and that median in seconds."""
    target = torch.empty_like(vector)
    seconds = in_turns({"copy": lambda: target.copy_(vector)} | dict(calls), repeats, limit_s=LIMIT_S)
    copy_s = statistics.median(seconds.pop("copy"))
    return {by: over(taken, copy_s) for by, taken in seconds.items()}, copy_s
