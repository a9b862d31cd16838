"""Times measured in turns, since a machine's speed changes over minutes, and the result files of the benches."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from laconic.bench.cases import Calls
from laconic.lab.provenance import machine, versions

_MIN_CALLS = 3
_SMALL_CALLS = 10  # per measurement of a call of microseconds; few, so that some are undisturbed by other processes
_SMALL_REPEATS = 5  # times the repeats of calls of milliseconds


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One quantity and all its measurements."""

    name: Mapping[str, str | int | float]
    """What identifies the row among the bench's rows."""
    unit: str
    """Unit of the samples."""
    samples: tuple[float, ...]
    """The measurements; less is better."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further figures of the row, as plain data."""

    @property
    def median(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile of the samples."""
        return quartiles(self.samples)

    def figures(self) -> dict[str, Any]:
        """Return the row as plain data for JSON."""
        return {
            **self.name, "unit": self.unit, "median": self.median, "quartiles": list(self.quartiles),
            "samples": list(self.samples), **self.details,
        }  # fmt: skip


def result_of(
    bench: str, settings: Mapping[str, Any], rows: Sequence[Measurement], left_out: Sequence[str] = ()
) -> Any:  # noqa: ANN401
    """Return the content of a bench's result file.

    Args:
        bench: The name of the bench.
        settings: Its options.
        rows: Its rows.
        left_out: What was not measured, and why.
    """
    return {
        "bench": bench, "settings": dict(settings), "versions": versions(), "machine": machine(),
        "names": list(dict.fromkeys(key for row in rows for key in row.name)),
        "rows": [row.figures() for row in rows], "left_out": list(left_out),
    }  # fmt: skip


def quartiles(samples: Sequence[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile; both are the sample if there is only one."""
    if len(samples) == 1:
        return samples[0], samples[0]
    lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
    return lower, upper


def in_turns(
    functions: Mapping[str, Callable[[], object]], repeats: int, *, limit_s: float = float("inf")
) -> dict[str, tuple[float, ...]]:
    """Time the functions in turns, after one call of each that is not counted.

    Args:
        functions: The functions by name.
        repeats: The number of turns.
        limit_s: Seconds after which a function is called no more, but at least three times.

    Returns:
        Seconds of each call, by name.
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
    """Return the seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def small_seconds(function: Callable[[], object], repeats: int) -> tuple[float, ...]:
    """Return the seconds of a call that takes microseconds, as means over a few calls, `5 * repeats` times."""

    def calls() -> None:
        for _ in range(_SMALL_CALLS):
            function()

    return tuple(taken / _SMALL_CALLS for taken in in_turns({"": calls}, _SMALL_REPEATS * repeats)[""])


def over(samples: Iterable[float], divisor: float) -> tuple[float, ...]:
    """Return each sample over `divisor`, such as the median time of a copy."""
    return tuple(sample / divisor for sample in samples)


LIMIT_S = 4.0  # of one function: plain torch takes a second where a kernel takes milliseconds


def vector_of(d: int) -> torch.Tensor:
    """Return the input of all kernels: (d,) float32 normal numbers."""
    return torch.randn(d, generator=torch.Generator().manual_seed(0))


def in_copies(calls: Calls, vector: torch.Tensor, repeats: int) -> tuple[dict[str, tuple[float, ...]], float]:
    """Time calls in turns with a copy of `vector`.

    Args:
        calls: The calls by name.
        vector: (d,) float32.
        repeats: The number of turns.

    Returns:
        Times by name, in multiples of the copy's median, and that median in seconds.
    """
    target = torch.empty_like(vector)
    seconds = in_turns({"copy": lambda: target.copy_(vector)} | dict(calls), repeats, limit_s=LIMIT_S)
    copy_s = statistics.median(seconds.pop("copy"))
    return {by: over(taken, copy_s) for by, taken in seconds.items()}, copy_s
