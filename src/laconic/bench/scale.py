"""How the cost of a simulated round grows with workers and with parameters: gradients are given, the exchange alone."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from laconic.bench.measure import Measurement
from laconic.contract import ALGORITHMS, Algorithm
from laconic.hyperparameters import from_text
from laconic.lab.synthetic_job import N_GRADIENTS, GivenJob

WORKERS = (2, 4, 8, 16, 32, 64)
SIZES = (100_000, 400_000, 1_600_000, 6_400_000, 25_000_000)
_SAMPLE_D = 1 << 15  # of the job whose memory is looked at
# Vectors that a round makes and drops beside what is remembered: corrected gradient, signs, decoded packets, sums.
_PASSING_VECTORS = 8
_WARM_UP_ROUNDS = 3  # in the first two vectors are made, and some methods send more than ever after
_MIN_S = 0.05  # of one sample: short rounds are repeated


class Left(list[str]):
    """What was not measured, and why."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number of workers and one of parameters."""

    workers: int
    d: int

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
    """Per method: a row of seconds for each cell, and two of exponents, over workers and over parameters.

    All cells' first samples give one exponent, the slope of log seconds by least squares; so do their second ones,
    and so on.
    memory_bytes: what the vectors of one cell may take. limit_s: what one method may. What is beyond is put in `left`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for method in methods:
            algorithm = from_text(ALGORITHMS[method], settings.get(method, {}), method)
            cells = _affordable(method, algorithm, workers, sizes, memory_bytes, left)
            yield from _rows_of(method, algorithm, cells, repeats, limit_s, left, listen)
    finally:
        torch.set_num_threads(before)


def _affordable(
    method: str, algorithm: Algorithm, workers: Sequence[int], sizes: Sequence[int], memory_bytes: int, left: Left
) -> list[Cell]:
    cells = []
    for n in workers:
        per_parameter = _bytes_per_parameter(algorithm, n)
        for d in sizes:
            cell = Cell(workers=n, d=d)
            try:
                algorithm.check_size(d, (d,), n)
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
    """What a job of `n` remembers for one parameter, and what passes: bytes."""
    try:
        job = GivenJob(algorithm, workers=n, d=_SAMPLE_D)
    except ValueError:
        return 0.0  # refused for its size; `check_size` says so
    for _ in range(2):
        job.round()
    remembered = sum(value.numel() * value.element_size() for value in job.remembered().values()) / _SAMPLE_D
    # What is remembered stays until the round is over, beside what will be, which often lies in the given gradients.
    return max(2 * remembered, remembered + 4.0 * n) + 4.0 * (_PASSING_VECTORS + N_GRADIENTS)


def _seconds(job: GivenJob) -> float:
    """The mean of one round or, where those are short, of several."""
    start = time.perf_counter()
    n = 0
    while n == 0 or time.perf_counter() - start < _MIN_S:
        job.round()
        n += 1
    return (time.perf_counter() - start) / n


def _rows_of(
    method: str,
    algorithm: Algorithm,
    cells: Sequence[Cell],
    repeats: int,
    limit_s: float,
    left: Left,
    listen: Callable[[str], None],
) -> Iterator[Measurement]:
    seconds: dict[Cell, list[float]] = {}
    spent_s = 0.0
    for cell in sorted(cells, key=lambda cell: cell.workers * cell.d):
        listen(f"{method}, {cell}")
        started = time.perf_counter()
        # Making it takes about as long as two rounds.
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


def _expected_s(seconds: Mapping[Cell, Sequence[float]], cell: Cell) -> float:
    """In proportion to the largest that was measured."""
    if not seconds:
        return 0.0
    nearest = max(seconds, key=lambda known: known.workers * known.d)
    return statistics.median(seconds[nearest]) * cell.workers * cell.d / (nearest.workers * nearest.d)


def slopes(seconds: Mapping[Cell, float]) -> tuple[float, float]:
    """By how much log seconds grow with log workers at equal parameters, and the reverse; NaN where nothing tells.

    Least squares with an intercept of its own for each number of parameters (of workers): cells that were left out at
    one end of the grid turn no slope.
    """
    by_workers = _slope([(cell.d, cell.workers, taken) for cell, taken in seconds.items()])
    by_sizes = _slope([(cell.workers, cell.d, taken) for cell, taken in seconds.items()])
    return by_workers, by_sizes


def _slope(points: Sequence[tuple[int, int, float]]) -> float:
    """points: (group, x, y). The slope of log y on log x within groups."""
    groups = np.array([group for group, _, _ in points])
    x, y = (np.log([point[place] for point in points]) for place in (1, 2))
    for group in set(groups.tolist()):
        of = groups == group
        x[of] -= x[of].mean()
        y[of] -= y[of].mean()
    variation = float(x @ x)
    return float(x @ y) / variation if variation > 1e-12 else math.nan  # rounding leaves no exact zero
