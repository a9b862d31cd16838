"""What is read off the runs of an item: one figure of each seed.

A measure is a name, and its arguments after a colon: "accuracy", "uploads to: 0.98", "bits to share: sgd, 0.98".
A run is a list of looks: totals over all workers since the start, at some of its steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from laconic.hyperparameters import near_misses
from laconic.reproduce.rules import Measured
from laconic.reproduce.straight_line import slope_of

Look = Mapping[str, Any]
"""step, epoch, test_accuracy, train_loss, uploads, paper_bits, payload_bits, wire_bytes, seconds and so on."""


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run of one row and one seed."""

    row: str
    seed: int
    looks: Sequence[Look]
    figures: Mapping[str, Any]
    """What is known of the run as a whole."""

    @property
    def last(self) -> Look:
        """The look at its end."""
        return self.looks[-1]


FinishedRuns = Mapping[str, Sequence[FinishedRun]]
"""The runs of an item by row."""


def measured(measure: str, row: str, cells: FinishedRuns) -> Measured:
    """Return a measure of a row, by seed.

    Raises:
        ValueError: There is no such measure, or an argument is wrong.
    """
    name, _, arguments = (part.strip() for part in measure.partition(":"))
    if name not in _MEASURES:
        raise ValueError(f"unknown measure {name!r}{near_misses(name, list(_MEASURES))}")
    words = [word.strip() for word in arguments.split(",") if word.strip()]
    found = _MEASURES[name](row, cells, *words)
    return Measured(
        by_seed={seed: value for seed, (value, _) in found.items()}, is_bound=any(bound for _, bound in found.values())
    )


_Found = dict[int, tuple[float, bool]]  # by seed: the figure, and whether it is only a lower bound


def _at_end(key: str, factor: float = 1.0) -> Callable[..., _Found]:
    def read(row: str, cells: FinishedRuns) -> _Found:
        return {cell.seed: (factor * float(cell.last[key]), False) for cell in cells[row]}

    return read


def _of_run(key: str) -> Callable[..., _Found]:
    def read(row: str, cells: FinishedRuns) -> _Found:
        return {cell.seed: (float(cell.figures[key]), False) for cell in cells[row]}

    return read


def _to_target(key: str) -> Callable[..., _Found]:
    """Return a measure: what a run has used when it first reaches an accuracy."""

    def read(row: str, cells: FinishedRuns, target: str) -> _Found:
        return {cell.seed: _until(cell, key, float(target)) for cell in cells[row]}

    return read


def _to_share(key: str) -> Callable[..., _Found]:
    """Return a measure: the same for a share of the best mean accuracy of another row."""

    def read(row: str, cells: FinishedRuns, other: str, share: str) -> _Found:
        return {cell.seed: _until(cell, key, float(share) * best_mean(cells[other])) for cell in cells[row]}

    return read


def best_mean(cells: Sequence[FinishedRun]) -> float:
    """Return the best accuracy of a row: the highest mean over its seeds, of all looks."""
    return max(
        mean(float(look["test_accuracy"]) for look in looks)
        for looks in zip(*(cell.looks for cell in cells), strict=True)
    )


def _until(cell: FinishedRun, key: str, target: float) -> tuple[float, bool]:
    reached = next((look for look in cell.looks if look["test_accuracy"] >= target), None)
    return float((reached or cell.last)[key]), reached is None


def _accuracy_at_uploads(row: str, cells: FinishedRuns, other: str, epochs: str) -> _Found:
    """Return the accuracy in points where a run has as many uploads as the other row after these epochs."""
    found: _Found = {}
    for cell in cells[row]:
        that = next((one for one in cells[other] if one.seed == cell.seed), None)
        if that is not None:
            uploads = next(look["uploads"] for look in that.looks if look["epoch"] >= float(epochs))
            reached = [look for look in cell.looks if look["uploads"] <= uploads]
            found[cell.seed] = (100 * float((reached or cell.looks)[-1 if reached else 0]["test_accuracy"]), False)
    return found


def _seconds_in_fifth(row: str, cells: FinishedRuns, number: str) -> _Found:
    """Return the simulated seconds between two looks, on average over a fifth of the run, from 1 to 5."""
    found: _Found = {}
    for cell in cells[row]:
        length = len(cell.looks) // 5
        stop = int(number) * length
        before = cell.looks[stop - length - 1]["seconds"] if stop > length else 0.0
        found[cell.seed] = ((float(cell.looks[stop - 1]["seconds"]) - float(before)) / length, False)
    return found


def _fall_of_seconds(row: str, cells: FinishedRuns) -> _Found:
    """Return the seconds between two looks in the first fifth of the run, less those in the last."""
    begin, end = _seconds_in_fifth(row, cells, "1"), _seconds_in_fifth(row, cells, "5")
    return {seed: (begin[seed][0] - end[seed][0], False) for seed in begin}


def _change_of_seconds(row: str, cells: FinishedRuns) -> _Found:
    """Return the seconds between two looks in the last fifth of the run, over those in the first."""
    begin, end = _seconds_in_fifth(row, cells, "1"), _seconds_in_fifth(row, cells, "5")
    return {seed: (end[seed][0] / begin[seed][0], False) for seed in begin}


def _below_mean(row: str, cells: FinishedRuns, margin: str, *others: str) -> _Found:
    """Return by how much more than a margin a row's final accuracy is below the mean of others, in points."""
    mean_of_others = _mean_of(others[0], cells, *others[1:])
    own = measured("accuracy", row, cells).by_seed
    return {seed: (value - own[seed] - float(margin), False) for seed, (value, _) in mean_of_others.items()}


def _drop_at(row: str, cells: FinishedRuns, share: str) -> _Found:
    """Return by how many points the accuracy changes within the epoch that follows this share of a run."""
    found: _Found = {}
    for cell in cells[row]:
        begins = float(share) * float(cell.last["epoch"])
        before = [look for look in cell.looks if look["epoch"] <= begins][-1]
        after = next(look for look in cell.looks if look["epoch"] >= begins + 1)
        found[cell.seed] = (100 * (float(after["test_accuracy"]) - float(before["test_accuracy"])), False)
    return found


def _stays_above(row: str, cells: FinishedRuns, other: str) -> _Found:
    """Return the epoch from which a run's accuracy stays above that of another row; its end if it does not."""
    found: _Found = {}
    for cell in cells[row]:
        that = next((one for one in cells[other] if one.seed == cell.seed), None)
        if that is not None:
            below = [
                float(own["epoch"])
                for own, other_look in zip(cell.looks, that.looks, strict=True)
                if own["test_accuracy"] <= other_look["test_accuracy"]
            ]
            found[cell.seed] = (max(below, default=0.0), False)
    return found


def _range(row: str, cells: FinishedRuns, *others: str) -> _Found:
    """Return the difference between the best and the worst final accuracy of several rows, in points."""
    by_row = [measured("accuracy", one, cells).by_seed for one in (row, *others)]
    seeds = set(by_row[0]).intersection(*by_row)
    return {seed: (max(one[seed] for one in by_row) - min(one[seed] for one in by_row), False) for seed in seeds}


def _mean_of(row: str, cells: FinishedRuns, *others: str) -> _Found:
    """Return the mean final accuracy of several rows, in points."""
    by_row = [measured("accuracy", one, cells).by_seed for one in (row, *others)]
    return {seed: (mean(one[seed] for one in by_row), False) for seed in set(by_row[0]).intersection(*by_row)}


def _exponent_of_steps(row: str, runs: FinishedRuns, *others: str) -> _Found:
    """Return the slope of log T over log(1/eps) by seed: eps is the mean squared gradient of a run of T steps."""
    by_seed: dict[int, dict[float, float]] = {}
    for each in (row, *others):
        for run in runs[each]:
            by_seed.setdefault(run.seed, {})[1 / float(run.last["mean_squared_gradient"])] = float(run.last["step"])
    return {seed: (slope_of(points), False) for seed, points in by_seed.items() if len(points) == 1 + len(others)}


_MEASURES: dict[str, Callable[..., _Found]] = {
    "accuracy": _at_end("test_accuracy", 100.0),
    "train loss": _at_end("train_loss"),
    "gap": _at_end("gap"),
    "uploads": _at_end("uploads"),
    "paper bits": _at_end("paper_bits"),
    "uploads to": _to_target("uploads"),
    "bits to": _to_target("paper_bits"),
    "uploads to share": _to_share("uploads"),
    "bits to share": _to_share("paper_bits"),
    "seconds to share": _to_share("seconds"),
    "upload bytes to share": _to_share("wire_bytes"),
    "seconds": _at_end("seconds"),
    "accuracy at uploads of": _accuracy_at_uploads,
    "fall of seconds": _fall_of_seconds,
    "change of seconds": _change_of_seconds,
    "drop after": _drop_at,
    "epoch from which above": _stays_above,
    "spread with": _range,
    "below the mean by more than": _below_mean,
    "exponent of steps with": _exponent_of_steps,
    "parameters": _of_run("parameters_hash"),
}
