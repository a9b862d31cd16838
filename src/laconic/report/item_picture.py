"""The picture of an item: its panels side by side, each row a mean over seeds with a band to the extreme seeds."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from laconic.report.drawing import line_style, picture_bytes, plain_axes, wrapped
from laconic.report.visible import for_matplotlib
from laconic.reproduce.items import Item, Panel
from laconic.reproduce.judging import Found
from laconic.reproduce.pictures import INVERSE, Curve, axis_label, curves_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_IN = (4.2, 3.0)
_LOGARITHMIC = 20.0  # an axis whose curves end farther apart than this is logarithmic
_LOSSES = 50.0  # and so is a loss that falls this much
_LEGEND_LETTERS = 56  # of a line below one panel; a line sample takes seven more for each row
_MAX_POINTS = 40  # of a curve


def draw_item(item: Item, found: Found, ending: str) -> bytes:
    """Return the picture of an item of which all that it shows is finished. `ending` is ".png", ".svg" or ".pdf"."""
    by_panel = [(panel, curves_of(panel, item, found)) for panel in item.panels]
    title = f"Paper {item.paper}, {item.prints}: {item.title}"
    labels = list(dict.fromkeys(curve.label for _, curves in by_panel for curve in curves))
    columns = max(1, min(len(labels), _LEGEND_LETTERS * len(by_panel) // (max(map(len, labels)) + 7)))
    width_in, height_in = _PANEL_IN[0] * max(len(by_panel), 1.3), _PANEL_IN[1]

    def draw(figure: "Figure") -> None:
        every_axes = figure.subplots(1, len(by_panel), squeeze=False)[0]
        for axes, (panel, curves) in zip(every_axes, by_panel, strict=True):
            (_draw_fit if panel.slope is not None else _draw_runs)(axes, panel, curves, labels)
            axes.set_xlabel(axis_label(panel.x, panel))
            axes.set_ylabel(axis_label(panel.y, panel))
            plain_axes(axes)
        handles = {line.get_label(): line for axes in every_axes for line in axes.get_lines()}
        handles = {label: line for label, line in handles.items() if not str(label).startswith("_")}
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=columns, frameon=False,
            fontsize=8, handlelength=3.0,
        )  # fmt: skip
        figure.suptitle(wrapped(title, 46 * max(len(by_panel), 1)), fontsize=9)

    rows = math.ceil(len(labels) / columns)
    return picture_bytes((width_in, height_in + 0.18 * rows + 0.2), ending, title, draw, small=True)


def _draw_runs(axes: "Axes", panel: Panel, curves: Sequence[Curve], labels: Sequence[str]) -> None:
    for curve in map(_thinned, curves):
        style = line_style(labels.index(curve.label), len(curve.x))
        axes.fill_between(curve.x, curve.lowest, curve.highest, color=style["color"], alpha=0.18, linewidth=0)
        axes.plot(curve.x, curve.y, label=for_matplotlib(curve.label), **style | {"markersize": 3.5, "linewidth": 1.2})
    ends = [curve.x[-1] for curve in curves]
    if max(ends) > _LOGARITHMIC * min(ends) > 0:
        axes.set_xscale("log")
    heights = [value for curve in curves for value in curve.y]
    if panel.y != "accuracy" and max(heights) > _LOSSES * min(heights) > 0:
        axes.set_yscale("log")


def _thinned(curve: Curve) -> Curve:
    """Return a curve with at most so many points as are seen, the last one among them."""
    step = -(-len(curve.x) // _MAX_POINTS)
    shown = slice((len(curve.x) - 1) % step, None, step)
    return replace(
        curve, x=curve.x[shown], y=curve.y[shown], lowest=curve.lowest[shown], highest=curve.highest[shown]
    )  # fmt: skip


def _draw_fit(axes: "Axes", panel: Panel, curves: Sequence[Curve], labels: Sequence[str]) -> None:
    """Draw the points on logarithmic axes, and a straight line of the slope of the theorem."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    assert panel.slope is not None
    inverted = panel.x == INVERSE
    for curve in curves:
        style = line_style(labels.index(curve.label), len(curve.x)) | {"markersize": 4, "linewidth": 1.2}
        band = axes.fill_betweenx if inverted else axes.fill_between
        band(curve.x, curve.lowest, curve.highest, color=style["color"], alpha=0.18, linewidth=0)
        points = (curve.y, curve.x) if inverted else (curve.x, curve.y)
        axes.plot(*points, label=for_matplotlib(curve.label), **style)
        begin, end = points[0][0], points[0][-1]
        height = points[1][-1]
        axes.plot(
            [begin, end], [height * (begin / end) ** panel.slope, height], color="#777777", linewidth=0.9,
            linestyle=(0, (1, 1.5)), label=f"slope {panel.slope:g}",
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    of_eps, of_what_varies = (axes.xaxis, axes.yaxis) if inverted else (axes.yaxis, axes.xaxis)
    varied = sorted({value for curve in curves for value in curve.x})
    of_what_varies.set_major_locator(FixedLocator(varied))
    of_eps.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    for axis in (of_eps, of_what_varies):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, place: f"{value:.3g}" if value < 1000 else f"{value:.0f}")
