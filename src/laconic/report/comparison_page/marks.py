"""The course of one run as a page shows it: about `MAX_MARKS` marks, each with what the rounds since the last one did.

Marks stand at the ends of epochs, where the metric is measured, and between them as far as there is space. Bytes are
summed up, so that a curve over bytes goes through exact points; losses, norms and the like are means.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.lab.runs.files import METRICS
from laconic.lab.runs.rounds import FILE as ROUNDS

MEASURED = ("test_accuracy", "metric", "gap")
"""The columns of `metrics.csv` that say how good a model is, the one that a comparison goes by before the others."""
MAX_MARKS = 120
_DIGITS = 5  # of means; bytes and rounds are exact
_LARGEST, _MAX_BYTES = 1e150, 2.0**62  # of what can be drawn, and added up over runs
_SUMS = ("up_wire_bytes", "down_wire_bytes", "skips_up", "skips_down", "aborted")
_MEANS = ("train_loss", "staleness_max", "residual_norm", "vote_agreement")

Numbers = NDArray[np.float64]


@dataclass(kw_only=True)
class Marks:
    """Columns of equal length, one element a mark."""

    round: list[int] = field(default_factory=list)
    """Number of rounds since the start."""
    epoch: list[float] = field(default_factory=list)
    up: list[int] = field(default_factory=list)
    """Wire bytes that all workers have sent since the start."""
    down: list[int] = field(default_factory=list)
    """Wire bytes that all workers have received since the start."""
    dense: list[int] = field(default_factory=list)
    """1 where the rounds of the mark belong to the dense warm-up."""
    measured: dict[str, list[float | None]] = field(default_factory=dict)
    """By column of `metrics.csv`, what was measured at the end of an epoch; None within it."""
    train_loss: list[float | None] = field(default_factory=list)
    skips_up: list[float | None] = field(default_factory=list)
    """Share of the workers' packets that were not sent, on purpose."""
    skips_down: list[float | None] = field(default_factory=list)
    aborted: list[float | None] = field(default_factory=list)
    staleness_max: list[float | None] = field(default_factory=list)
    """The largest of a round, as a mean over the mark's rounds."""
    residual_norm: list[float | None] = field(default_factory=list)
    vote_agreement: list[float | None] = field(default_factory=list)
    n_rounds: int = 0
    """Rounds that were recorded, of which the marks are a summary."""


def marks_of(folder: Path, *, n_workers: int, dense_rounds: int = 0, taken: int | None = None) -> Marks:
    """Read a run's `metrics.csv`, and its `rounds.csv` if it has one.

    Args:
        folder: Of the run.
        n_workers: Number of workers, of whose packets skips are a share.
        dense_rounds: Rounds of the dense warm-up, at the start.
        taken: The rounds that the run took until its end; None if it did not end.

    Raises:
        ValueError: A file is not as `laconic run` writes it, or lacks rounds of a run that ended.
    """
    epochs = _columns(folder / METRICS)
    rounds = _columns(folder / ROUNDS)
    if taken is not None:
        _check_complete(folder / METRICS, epochs, taken)
        _check_complete(folder / ROUNDS, rounds, taken)
    if not epochs and not rounds:
        return Marks()
    ends = epochs.get("round", np.zeros(0)).astype(np.int64)
    if not rounds:
        rounds = _as_rounds(epochs)
        bounds = ends[ends > 0]
        n_rounds, stops = int(bounds[-1]) if len(bounds) else 0, np.arange(1, len(bounds) + 1)
    else:
        n_rounds = len(rounds["round"])
        bounds = _bounds(ends[(ends > 0) & (ends <= n_rounds)], n_rounds, dense_rounds)
        stops = bounds
    marks = Marks(round=bounds.tolist(), n_rounds=n_rounds)
    if not len(bounds):
        return marks
    _fill(marks, rounds, stops, n_workers)
    marks.dense = [int(end <= dense_rounds) for end in marks.round]
    for name in MEASURED:
        of_end = dict(zip(ends.tolist(), _numbers(epochs.get(name, np.full(len(ends), math.nan))), strict=True))
        if any(value is not None for value in of_end.values()):
            marks.measured[name] = [of_end.get(end) for end in marks.round]
    if "epoch" in epochs and len(ends):  # metrics know where an epoch ends
        known = dict(zip(ends.tolist(), _numbers(epochs["epoch"]), strict=True))
        marks.epoch = [known.get(end) or epoch for end, epoch in zip(marks.round, marks.epoch, strict=True)]
    return marks


def _check_complete(path: Path, columns: Mapping[str, Numbers], taken: int) -> None:
    """Refuse a truncated file: its last row is not that of the run's last round."""
    written = columns.get("round")
    if written is not None and len(written) and int(written[-1]) != taken:
        raise ValueError(f"{path}: ends at round {int(written[-1])} of {taken}; run this again")


def _fill(marks: Marks, rounds: Mapping[str, Numbers], stops: NDArray[np.int64], n_workers: int) -> None:
    """Write what the rounds between two stops did. `stops` are numbers of rows in `rounds`."""
    starts = np.concatenate(([0], stops[:-1]))
    rows = int(stops[-1])
    counts = np.diff(np.concatenate(([0], marks.round))) * n_workers

    def column(name: str) -> Numbers | None:
        values = rounds.get(name)
        return None if values is None or np.isnan(values[:rows]).all() else values[:rows]

    for name in _SUMS:
        values = column(name)
        total = (
            np.zeros(len(stops)) if values is None else np.add.reduceat(np.where(np.isnan(values), 0, values), starts)
        )
        if name in ("up_wire_bytes", "down_wire_bytes"):
            if not ((total >= 0) & (total.sum() < _MAX_BYTES)).all():
                raise ValueError(f"{ROUNDS}, column {name}: no run sends so many bytes")
            setattr(marks, name.split("_")[0], np.cumsum(total).astype(np.int64).tolist())
        elif values is not None and total.any():
            setattr(marks, name, _numbers(total / (counts / n_workers if name == "aborted" else counts)))
    for name in _MEANS:
        values = column(name)
        if values is not None:
            present = ~np.isnan(values)
            with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
                mean = np.add.reduceat(np.where(present, values, 0.0), starts) / np.add.reduceat(present, starts)
            setattr(marks, name, _numbers(mean))
    epoch = column("epoch")
    if epoch is not None:
        marks.epoch = [float(f"{value:.6g}") for value in epoch[stops - 1]]


def _bounds(ends: NDArray[np.int64], n_rounds: int, dense_rounds: int) -> NDArray[np.int64]:
    """Return the rounds at which marks stand: ends of epochs, and between them as many as there is space for."""
    if len(ends) > MAX_MARKS:
        chosen = ends[np.linspace(0, len(ends) - 1, MAX_MARKS).round().astype(np.int64)]
        return np.unique(chosen)
    stops = np.unique(np.concatenate((ends, [n_rounds])))
    stops = stops[stops > 0]
    per_epoch = max(1, MAX_MARKS // max(1, len(stops)))
    begin, found = 0, [dense_rounds] if 0 < dense_rounds < n_rounds else []
    for stop in stops.tolist():
        found += np.linspace(begin, stop, min(per_epoch, stop - begin) + 1)[1:].round().astype(int).tolist()
        begin = stop
    return np.unique(np.array(found, dtype=np.int64))


def _as_rounds(epochs: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Return the totals of `metrics.csv` as differences between epochs."""
    totals = ("up_wire_bytes", "down_wire_bytes", "skips_up", "skips_down")
    keep = epochs["round"] > 0 if "round" in epochs else np.ones(0, dtype=bool)
    of = {name: np.diff(values[keep], prepend=0.0) for name, values in epochs.items() if name in totals}
    return of | {name: epochs[name][keep] for name in ("epoch", "train_loss") if name in epochs}


def _columns(path: Path) -> dict[str, Numbers]:
    """Return the columns of a CSV file as numbers, NaN where a cell is empty; nothing if there is no file."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
    except csv.Error as error:
        raise ValueError(f"{path}: is no CSV file of a run ({error})") from None
    if not rows:
        return {}
    names, lines = rows[0], rows[1:]
    if lines and len(lines[-1]) != len(names):  # of a run that was killed while it wrote
        lines.pop()
    for number, line in enumerate(lines, start=2):
        if len(line) != len(names):
            raise ValueError(f"{path}, line {number}: has {len(line)} cells, and the first line names {len(names)}")
    if "round" not in names:
        raise ValueError(f"{path}: has no column `round`")
    columns = zip(*lines, strict=True) if lines else [()] * len(names)
    return {name: _read(path, name, column) for name, column in zip(names, columns, strict=True)}


def _read(path: Path, name: str, column: Sequence[str]) -> Numbers:
    try:
        return np.array([value or "nan" for value in column], dtype=object).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: column {name:.40} has a cell that is no number ({error!s:.80})") from None


def _numbers(values: Any) -> list[float | None]:  # noqa: ANN401 - any array
    """Return numbers of a few digits, None where there is none that can be drawn."""
    every = np.asarray(values).tolist()
    return [float(f"{value:.{_DIGITS}g}") if abs(value) < _LARGEST else None for value in every]
