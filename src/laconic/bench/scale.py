"""Measures how the cost of a simulated exchange with given gradients grows with workers and parameters."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from laconic.bench.measure import Measurement
from laconic.contract import Algorithm
from laconic.lab.algorithms import make_algorithm
from laconic.lab.synthetic_job import N_GRADIENTS, GivenJob, sample_spec

WORKERS = (2, 4, 8, 16, 32, 64)
SIZES = (100_000, 400_000, 1_600_000, 6_400_000, 25_000_000)
_SAMPLE_D = 1 << 15  # of the job whose memory is measured
# Vectors that a round makes and drops beside its memories: corrected gradient, signs, decoded packets, sums.
_PASSING_VECTORS = 8
_WARM_UP_ROUNDS = 3  # the first two allocate vectors, and some methods send more in them
_MIN_S = 0.05  # of one sample; shorter rounds are repeated


class Left(list[str]):
    """What was not measured, and why."""


@dataclass(frozen=True, kw_only=True)
class JobSize:
    """One combination of a number of workers and a number of parameters."""

    workers: int
    d: int
    """The number of parameters."""

    def __str__(self) -> str:
        return f"{self.workers} workers, {self.d:,} parameters"


def measure_scale(
    methods: Sequence[str],
    workers: Sequence[int],
    sizes: Sequence[int],
    repeats: int,
    *,
    memory_bytes: int,
    limit_s: float,
    settings: Mapping[str, Mapping[str, str]],
    left: Left,
    listen: Callable[[str], None] = lambda what: None,
) -> Iterator[Measurement]:
    """Measure rounds of each method, and fit exponents over workers and over parameters.

    An exponent is the least-squares slope of log seconds. The first samples of all cells give one exponent, the second
    samples another, and so on.

    Args:
        methods: The methods.
        workers: Numbers of workers.
        sizes: Numbers of parameters.
        repeats: The number of samples of each cell.
        memory_bytes: Maximum bytes of the vectors of one cell.
        limit_s: Maximum seconds of one method.
        settings: Hyper-parameters by method.
        left: Gets what was not measured, and why.
        listen: Gets the name of each cell before it is measured.

    Yields:
        For each method a row of seconds per cell, and two rows of exponents.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for method in methods:
            algorithm = make_algorithm(method, settings.get(method, {}))
            cells = _affordable(method, algorithm, workers, sizes, memory_bytes, left)
            yield from _rows_of(method, algorithm, cells, repeats, limit_s, left, listen)
    finally:
        torch.set_num_threads(before)


def _affordable(
    method: str, algorithm: Algorithm, workers: Sequence[int], sizes: Sequence[int], memory_bytes: int, left: Left
) -> list[JobSize]:
    cells = []
    for n in workers:
        per_parameter = _bytes_per_parameter(algorithm, n)
        for d in sizes:
            cell = JobSize(workers=n, d=d)
            try:
                algorithm.check_size(sample_spec(algorithm, d, n), n)
            except ValueError as error:
                left.append(f"{method}, {cell}: {error}")
                continue
            needed = per_parameter * d
            if needed > memory_bytes:
                left.append(f"{method}, {cell}: about {needed / 1e9:.3g} GB of vectors")
            else:
                cells.append(cell)
    return cells


def _bytes_per_parameter(algorithm: Algorithm, n: int) -> float:
    """Return the bytes per parameter of a job of `n` workers: its memories and its temporary vectors."""
    try:
        job = GivenJob(algorithm, workers=n, d=_SAMPLE_D)
    except ValueError:
        return 0.0  # refused for its size; `check_size` says so
    for _ in range(2):
        job.round()
    remembered = sum(value.numel() * value.element_size() for value in job.remembered().values()) / _SAMPLE_D
    # Old memories remain until the round ends, beside the new ones, which often reuse the given gradients.
    return max(2 * remembered, remembered + 4.0 * n) + 4.0 * (_PASSING_VECTORS + N_GRADIENTS)


def _seconds(job: GivenJob) -> float:
    """Return the seconds of one round, or the mean of several if they are short."""
    start = time.perf_counter()
    n = 0
    while n == 0 or time.perf_counter() - start < _MIN_S:
        job.round()
        n += 1
    return (time.perf_counter() - start) / n


def _rows_of(
    method: str,
    algorithm: Algorithm,
    cells: Sequence[JobSize],
    repeats: int,
    limit_s: float,
    left: Left,
    listen: Callable[[str], None],
) -> Iterator[Measurement]:
    seconds: dict[JobSize, list[float]] = {}
    spent_s = 0.0
    for cell in sorted(cells, key=lambda cell: cell.workers * cell.d):
        listen(f"{method}, {cell}")
        started = time.perf_counter()
        # Making the job takes about as long as two rounds.
        expected_s = max(_expected_s(seconds, cell), _MIN_S) * repeats + _expected_s(seconds, cell) * 5
        if seconds and spent_s + expected_s > limit_s:
            left.append(f"{method}, {cell}: about {expected_s:.3g} s, more than is left of --seconds")
            continue
        job = GivenJob(algorithm, workers=cell.workers, d=cell.d)
        for _ in range(_WARM_UP_ROUNDS):
            job.round()
        seconds[cell] = [_seconds(job) for _ in range(repeats)]
        spent_s += time.perf_counter() - started
    for cell, taken in seconds.items():
        yield Measurement(
            name={"method": method, "what": "round", "workers": cell.workers, "parameters": cell.d}, unit="s",
            samples=tuple(taken),
        )  # fmt: skip
    for what, slope in (("exponent of N", 0), ("exponent of d", 1)):
        found = [slopes({cell: taken[turn] for cell, taken in seconds.items()})[slope] for turn in range(repeats)]
        known = tuple(value for value in found if not math.isnan(value))
        if known:
            yield Measurement(
                name={"method": method, "what": what, "workers": "", "parameters": ""}, unit="exponent", samples=known,
                details={"cells": len(seconds), "bar": [0.95, 1.05]},
            )  # fmt: skip
        else:
            left.append(f"{method}, {what}: fewer than two sizes were measured")


def _expected_s(seconds: Mapping[JobSize, Sequence[float]], cell: JobSize) -> float:
    """Return the expected seconds of a round, in proportion to the largest cell that was measured."""
    if not seconds:
        return 0.0
    nearest = max(seconds, key=lambda known: known.workers * known.d)
    return statistics.median(seconds[nearest]) * cell.workers * cell.d / (nearest.workers * nearest.d)


def slopes(seconds: Mapping[JobSize, float]) -> tuple[float, float]:
    """Fit the exponents of the seconds in the number of workers and in the number of parameters.

    Each fit is least squares of the logarithms, with one intercept per number of parameters (or of workers), so that
    cells that were left out at one end of the grid do not bias the slope.

    Returns:
        The two exponents; NaN if there are fewer than two sizes.
    """
    by_workers = _slope([(cell.d, cell.workers, taken) for cell, taken in seconds.items()])
    by_sizes = _slope([(cell.workers, cell.d, taken) for cell, taken in seconds.items()])
    return by_workers, by_sizes


def _slope(points: Sequence[tuple[int, int, float]]) -> float:
    """Return the slope of log y on log x within groups. `points` are (group, x, y)."""
    groups = np.array([group for group, _, _ in points])
    x, y = (np.log([point[place] for point in points]) for place in (1, 2))
    for group in set(groups.tolist()):
        of = groups == group
        x[of] -= x[of].mean()
        y[of] -= y[of].mean()
    variation = float(x @ x)
    return float(x @ y) / variation if variation > 1e-12 else math.nan  # rounding leaves no exact zero
