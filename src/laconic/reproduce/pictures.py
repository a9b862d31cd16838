"""The curves of items in the papers' own axes: means over seeds, with the lowest and the highest seed.

Runs are read off at their looks. Where seeds have not used equally much at a look, each is interpolated linearly to
what all have used on average.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

import numpy

from laconic.hyperparameters import near_misses
from laconic.reproduce.items import Item, Panel
from laconic.reproduce.judging import Found
from laconic.reproduce.measures import FinishedRun, Look

INVERSE = "1/eps"
"""The positions of a fit that has what is varied over the inverse of what was found."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One row of a panel."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    """The mean over seeds."""
    lowest: Sequence[float]
    highest: Sequence[float]


@dataclass(frozen=True)
class _Axis:
    label: str
    read: Callable[[Sequence[Look]], list[float]]


def _of_looks(key: str, factor: float = 1.0) -> Callable[[Sequence[Look]], list[float]]:
    return lambda looks: [factor * float(look[key]) for look in looks]


def _between_looks(looks: Sequence[Look]) -> list[float]:
    """Return the seconds from each look to the next one."""
    seconds = [0.0, *(float(look["seconds"]) for look in looks)]
    return [after - before for before, after in pairwise(seconds)]


_AXES = {
    "epoch": _Axis("epochs", _of_looks("epoch")),
    "step": _Axis("iterations", _of_looks("step")),
    "uploads": _Axis("uploads of all workers", _of_looks("uploads")),
    "seconds": _Axis("communication time (s)", _of_looks("seconds")),
    "seconds between looks": _Axis("communication time since the last look (s)", _between_looks),
    "accuracy": _Axis("test accuracy (%)", _of_looks("test_accuracy", 100.0)),
    "loss": _Axis("training loss", _of_looks("train_loss")),
    "gap": _Axis("gap of the training loss", _of_looks("gap")),
}


def axis_label(name: str, panel: Panel) -> str:
    """Return the words at an axis of a panel. Raises ValueError if no run or fit has it."""
    if panel.slope is not None:
        return name
    if name not in _AXES:
        raise ValueError(f"unknown axis {name!r}{near_misses(name, list(_AXES))}")
    return _AXES[name].label


def rows_of(panel: Panel, item: Item) -> tuple[str, ...]:
    """Return the rows that a panel shows."""
    return panel.rows or (*item.rows, *item.own)


def curves_of(panel: Panel, item: Item, found: Found) -> list[Curve]:
    """Return the curves of a panel; none if one of its rows has not been run."""
    rows = rows_of(panel, item)
    labels = [item.labels.get(row, row) for row in rows]
    if panel.slope is not None:
        points = [_points(row, panel, item, found) for row in rows]
        if not all(points):
            return []
        return [_fit(label, one, panel) for label, one in zip(labels, points, strict=True)]
    if any(row not in found.cells for row in rows):
        return []
    return [_curve(label, found.cells[row], panel) for label, row in zip(labels, rows, strict=True)]


def is_drawable(item: Item, found: Found) -> bool:
    """Return whether an item has a picture and all that it shows is finished."""
    return bool(item.panels) and all(curves_of(panel, item, found) for panel in item.panels)


def _curve(label: str, cells: Sequence[FinishedRun], panel: Panel) -> Curve:
    positions = [_AXES[panel.x].read(cell.looks) for cell in cells]
    values = [_AXES[panel.y].read(cell.looks) for cell in cells]
    begin, end = max(one[0] for one in positions), min(one[-1] for one in positions)
    means = [min(max(mean(at), begin), end) for at in zip(*positions, strict=True)]
    at_means = [numpy.interp(means, *one).tolist() for one in zip(positions, values, strict=True)]
    return _band(label, means, list(zip(*at_means, strict=True)))


def _band(label: str, x: Sequence[float], by_seed: Sequence[Sequence[float]]) -> Curve:
    return Curve(
        label=label, x=x, y=[mean(one) for one in by_seed], lowest=[min(one) for one in by_seed],
        highest=[max(one) for one in by_seed],
    )  # fmt: skip


def _varied(panel: Panel) -> str:
    return panel.y if panel.x == INVERSE else panel.x


def _points(row: str, panel: Panel, item: Item, found: Found) -> dict[float, Mapping[int, float]]:
    """Return eps by seed for each value of what varies, in its order; none where one has not been run.

    They are computed figures, "DSGD, N = 4" and so on, or runs of an item's own or its setting's rows: "DSGD N=4".
    """
    computed, of_runs = f"{row}, {_varied(panel)} = ", f"{row} {_varied(panel)}="
    points: dict[float, Mapping[int, float]] = {
        float(name.removeprefix(computed)): value
        for name, value in (found.computed or {}).items()
        if name.startswith(computed) and isinstance(value, Mapping)
    }
    rows = [name for name in (*item.rows, *item.own) if name.startswith(of_runs)]
    if any(name not in found.cells for name in rows):
        return {}
    for name in rows:
        runs = found.cells[name]
        points[float(name.removeprefix(of_runs))] = {run.seed: run.last["mean_squared_gradient"] for run in runs}
    return dict(sorted(points.items()))


def _fit(label: str, points: Mapping[float, Mapping[int, float]], panel: Panel) -> Curve:
    """Return the points of a fit. Over the inverse, the band is that of the positions."""
    invert = panel.x == INVERSE
    by_seed = [[1 / value if invert else value for value in seeds.values()] for seeds in points.values()]
    return _band(label, list(points), by_seed)
