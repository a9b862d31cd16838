"""The lines of a page: the seeds of one method on one network and partition, and what they have reached."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from laconic.errors import LaconicError
from laconic.planning.recorded import read_recorded
from laconic.planning.shapes import Timing, timing_of
from laconic.report.comparison_page.folder import FINISHED, CellFolder, ComparisonFolder
from laconic.report.comparison_page.marks import MEASURED, Marks, marks_of
from laconic.report.comparison_page.phases import RecordedRound, recorded_rounds
from laconic.report.estimate import Estimate

LOSS = "train_loss"
_FAR = {True: 0.05, False: 2.0}  # where more, or less, is better: what is farther from the best method sets no target


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What the methods are compared by."""

    name: str
    """The column of `metrics.csv`."""
    words: str
    higher: bool
    """Whether more is better."""
    percent: bool = False
    logarithmic: bool = False

    def is_reached(self, value: float | None, target: float) -> bool:
        """Return whether a value is as good as the target."""
        return value is not None and (value >= target if self.higher else value <= target)

    def best(self, values: Iterable[float]) -> float:
        """Return the best of the values."""
        return max(values) if self.higher else min(values)

    def worst(self, values: Iterable[float]) -> float:
        """Return the worst of the values."""
        return min(values) if self.higher else max(values)


BY = (
    Metric(name="test_accuracy", words="test accuracy", higher=True, percent=True),
    Metric(name="metric", words="metric", higher=True),
    Metric(name="gap", words="gap f(x) - f*", higher=False, logarithmic=True),
)
BY_LOSS = Metric(name=LOSS, words="training loss", higher=False)
assert tuple(metric.name for metric in BY) == MEASURED


@dataclass(frozen=True, kw_only=True)
class Run:
    """One cell with its course."""

    cell: CellFolder
    marks: Marks
    timing: Timing | None
    fault: str | None
    """Why it cannot be shown or timed, if so."""
    phases: list[RecordedRound]
    """What its ranks did in some rounds, if it recorded that."""

    def values(self, metric: Metric) -> list[float | None]:
        """Return the metric at each mark; None within an epoch."""
        if metric.name == LOSS:
            return self.marks.train_loss
        return self.marks.measured.get(metric.name, [None] * len(self.marks.round))

    def at_end(self, metric: Metric) -> float | None:
        """Return the last value of the metric."""
        return next((value for value in reversed(self.values(metric)) if value is not None), None)

    def reached_at(self, metric: Metric, target: float) -> int | None:
        """Return the number of the first mark that is as good as the target; None if none is."""
        return next((mark for mark, value in enumerate(self.values(metric)) if metric.is_reached(value, target)), None)


@dataclass(frozen=True, kw_only=True)
class Series:
    """The seeds of one line."""

    label: str
    algorithm: str
    network: str | None
    partition: str
    runs: tuple[Run, ...]

    @property
    def shown(self) -> list[Run]:
        """The runs that have a course."""
        return [run for run in self.runs if run.marks.round]

    @property
    def timing(self) -> Timing | None:
        """How its rounds travel: equal for all seeds."""
        return next((run.timing for run in self.runs if run.timing is not None), None)


def series_of(comparison: ComparisonFolder) -> list[Series]:
    """Read the runs of a comparison and put the seeds of a line together, in the comparison's order."""
    by_series: dict[tuple[str, str, str], list[CellFolder]] = {}
    for cell in comparison.cells:
        by_series.setdefault(cell.series, []).append(cell)
    several = {name for name in ("network", "partition") if len({getattr(c, name) for c in comparison.cells}) > 1}
    found: dict[tuple[str, str], list[Series]] = {}
    for cells in by_series.values():
        one = Series(
            label=cells[0].label, algorithm=cells[0].algorithm,
            network=cells[0].network if "network" in several else None,
            partition=cells[0].partition if "partition" in several else "",
            runs=tuple(_run(cell) for cell in sorted(cells, key=lambda cell: cell.seed)),
        )  # fmt: skip
        found.setdefault((one.label, one.partition), []).append(one)
    return [one for of_networks in found.values() for one in _distinct(of_networks)]


def _distinct(series: Sequence[Series]) -> Sequence[Series]:
    """Return one line in place of those of several networks, if no network has changed what was trained.

    The page times that line on any of them.
    """
    courses = [[run.marks for run in one.runs] for one in series]
    if len(series) > 1 and courses[0][0].round and all(course == courses[0] for course in courses):
        return [replace(series[0], network=None)]
    return series


def _run(cell: CellFolder) -> Run:
    """Read what a cell's folder has. Damaged files cost this run its line, and no other."""
    settings = cell.settings
    workers = _count(settings.get("clients_per_round")) or _count(settings.get("workers"))
    dense_rounds = _count(cell.summary.get("dense_rounds"))
    traffic = cell.summary.get("traffic")
    taken = _count(traffic.get("rounds")) if isinstance(traffic, dict) else 0
    marks, timing, fault, phases = Marks(), None, None, list[RecordedRound]()
    try:
        marks = marks_of(cell.folder, n_workers=max(1, workers), dense_rounds=dense_rounds, taken=taken or None)
        if cell.summary and marks.round:
            timing = timing_of(read_recorded(cell.folder)[0])
            phases = recorded_rounds(cell.folder)
    except (ValueError, OSError, LookupError, ArithmeticError, LaconicError) as error:
        fault = str(error)
    return Run(cell=cell, marks=marks, timing=timing, fault=fault, phases=phases)


def _count(value: Any) -> int:  # noqa: ANN401 - whatever a file holds
    return value if isinstance(value, int) else 0


def metric_of(series: Sequence[Series]) -> Metric:
    """Return the metric that the runs have: what their task measures, or else the training loss."""
    measured = {name for one in series for run in one.runs for name in run.marks.measured}
    return next((metric for metric in BY if metric.name in measured), BY_LOSS)


def target_of(series: Sequence[Series], metric: Metric) -> float | None:
    """Return the target that a page starts with: what the methods reach with every seed.

    A method that diverged, or that ends far below the best one, does not lower it.
    """
    best_by_series = [
        metric.worst(metric.best(values) for values in of_runs)
        for one in series
        if (of_runs := [found for run in one.shown if (found := _present(run.values(metric)))])
    ]
    if not best_by_series:
        return None
    best = metric.best(best_by_series)
    near = [value for value in best_by_series if abs(value - best) <= _FAR[metric.higher] * abs(best)]
    lowest = metric.worst(near)
    digits = 3 if metric.percent else 4 - math.ceil(math.log10(abs(lowest) or 1.0))
    factor = 10.0**digits
    return (math.floor(lowest * factor) if metric.higher else math.ceil(lowest * factor)) / factor


def _present(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What the seeds of a line have reached, and at what cost."""

    series: Series
    final: Estimate | None
    """The metric at the end."""
    seeds: int
    """Runs that have a course."""
    reached: int
    """Those of them that have reached the target."""
    rounds: Estimate | None
    """Rounds to the target, over the seeds that have reached it. So for bytes."""
    up: Estimate | None
    down: Estimate | None
    total: Estimate | None
    total_up: Estimate | None
    """Bytes of the full run. So for `total_down`."""
    total_down: Estimate | None

    @property
    def complete(self) -> bool:
        """Whether every seed has finished without diverging."""
        return all(run.cell.state == FINISHED and run.marks.round for run in self.series.runs)


def result_of(series: Series, metric: Metric, target: float | None) -> Result:
    """Return a line of the table."""
    runs = series.shown
    found = [] if target is None else [(run, run.reached_at(metric, target)) for run in runs]
    at = [(run.marks, mark) for run, mark in found if mark is not None]

    def of(values: Iterable[float | None]) -> Estimate | None:
        return Estimate.of([value for value in values if value is not None])

    return Result(
        series=series, seeds=len(runs), reached=len(at), final=of(run.at_end(metric) for run in runs),
        rounds=of(marks.round[mark] for marks, mark in at), up=of(marks.up[mark] for marks, mark in at),
        down=of(marks.down[mark] for marks, mark in at),
        total=of(marks.up[mark] + marks.down[mark] for marks, mark in at),
        total_up=of(run.marks.up[-1] for run in runs), total_down=of(run.marks.down[-1] for run in runs),
    )  # fmt: skip


def differing(series: Sequence[Series]) -> tuple[list[str], dict[str, Any]]:
    """Return the settings that differ between lines, and those that all share with their values. Seeds are none."""
    all_settings = [run.cell.settings for one in series for run in one.runs if run.cell.settings]
    flat = [_flat(settings) for settings in all_settings]
    names = dict.fromkeys(name for settings in flat for name in settings if name != "seed")
    differ = [name for name in names if len({repr(settings.get(name)) for settings in flat}) > 1]
    same = {name: flat[0][name] for name in names if name not in differ}
    return differ, same


def settings_of(series: Series) -> dict[str, Any]:
    """Return the settings of a line, hyper-parameters as `set.NAME`; those that its seeds do not share are left out."""
    flat = [_flat(run.cell.settings) for run in series.runs if run.cell.settings]
    return {name: value for name, value in (flat[0] if flat else {}).items() if all(o.get(name) == value for o in flat)}


def _flat(settings: Any) -> dict[str, Any]:  # noqa: ANN401 - what a TOML file has
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name}.{key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
    return found
