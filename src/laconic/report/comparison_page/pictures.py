"""The curves of a comparison as a picture: means over seeds with bands, over epochs and over bytes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from laconic.report.comparison_page.series import Metric, Run, Series
from laconic.report.drawing import line_style, picture_bytes, plain_axes, wrapped
from laconic.report.visible import for_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Column = Callable[[Run], Sequence[float | None]]
_LOGARITHMIC = 20.0  # an axis whose values are farther apart than this is logarithmic


def draw_comparison(title: str, series: Sequence[Series], names: Sequence[str], metric: Metric, ending: str) -> bytes:
    """Return a picture: training loss and metric over epochs, metric over bytes, and metric against bytes at the end.

    Args:
        title: What was compared.
        series: The lines.
        names: Of the lines.
        metric: What they are compared by.
        ending: ".png", ".svg" or ".pdf".
    """
    scale, unit = (100.0, " (%)") if metric.percent else (1.0, "")
    label = f"{metric.words}{unit}"

    def values(run: Run) -> list[float | None]:
        return [None if value is None else scale * value for value in run.values(metric)]

    def draw(figure: "Figure") -> None:
        (loss, over_epochs), (over_bytes, at_end) = figure.subplots(2, 2)
        for number, one in enumerate(series):
            _line(loss, one, number, lambda run: run.marks.epoch, lambda run: run.marks.train_loss)
            _line(over_epochs, one, number, lambda run: run.marks.epoch, values)
            _line(over_bytes, one, number, _bytes_of, values)
            _point(at_end, one, number, values)
        for axes, x, y in (
            (loss, "epochs", "training loss"), (over_epochs, "epochs", label),
            (over_bytes, "bytes up and down, all workers", label),
            (at_end, "bytes of the full run", f"{metric.words} at the end{unit}"),
        ):  # fmt: skip
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            plain_axes(axes)
        for axes in (over_bytes, at_end):
            axes.set_xscale("log")
        _logarithmic_if_wide(loss)
        lines = [axes.get_lines()[number] for axes in [at_end] for number in range(len(at_end.get_lines()))]
        shown = [for_matplotlib(name) for name, one in zip(names, series, strict=True) if one.shown]
        figure.legend(lines, shown, loc="outside lower center", ncols=min(len(lines), 4) or 1, frameon=False)
        figure.suptitle(wrapped(title, 100))

    return picture_bytes((11, 7.5 + 0.25 * (-(-len(series) // 4))), ending, title, draw)


def _bytes_of(run: Run) -> list[float]:
    return [float(up + down) for up, down in zip(run.marks.up, run.marks.down, strict=True)]


def _line(axes: "Axes", series: Series, number: int, cost: Column, value: Column) -> None:
    """Draw the mean over seeds at each mark, and a band from the lowest to the highest."""
    points = []
    for mark in range(max((len(run.marks.round) for run in series.shown), default=0)):
        pairs = [(cost(run)[mark], _at(value(run), mark)) for run in series.shown if mark < len(run.marks.round)]
        found = [(x, y) for x, y in pairs if x is not None and y is not None]
        if found:
            xs, ys = zip(*found, strict=True)
            points.append((sum(xs) / len(xs), sum(ys) / len(ys), min(ys), max(ys)))
    if points:
        x, mean, low, high = zip(*points, strict=True)
        style = line_style(number, len(x))
        axes.plot(x, mean, **style)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)


def _at(values: Sequence[float | None], mark: int) -> float | None:
    return values[mark] if mark < len(values) else None


def _point(axes: "Axes", series: Series, number: int, value: Column) -> None:
    ends = [(_bytes_of(run)[-1], [y for y in value(run) if y is not None]) for run in series.shown]
    found = [(x, ys[-1]) for x, ys in ends if ys]
    if not series.shown:
        return
    xs, ys = zip(*found, strict=True) if found else ((), ())
    style = line_style(number, 1)
    x, y = ([sum(of) / len(of)] if of else [] for of in (xs, ys))
    axes.plot(x, y, **style)
    if len(ys) > 1:
        axes.vlines(x, min(ys), max(ys), color=style["color"], linewidth=1.5)


def _logarithmic_if_wide(axes: "Axes") -> None:
    values = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()]
    every = np.concatenate(values) if values else np.zeros(1)
    if every.min() > 0 and every.max() > _LOGARITHMIC * every.min():
        axes.set_yscale("log")
