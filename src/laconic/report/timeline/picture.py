"""A timeline as a PNG or SVG picture."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from laconic.report.timeline.bars import Bar, BarKind, Timeline

_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))
_WIDTH_IN = 11.0
_LANE_IN = 0.30
_LETTER_IN = 0.075  # width of a label's letter
_MAX_LABELS = 1_500  # with more bars, none has a label
# Hatching distinguishes latency and waiting without color.
_HATCHES = {BarKind.LATENCY: "....", BarKind.WAIT: "////"}


def draw_timeline(timeline: Timeline, path: Path) -> None:
    """Write the picture as PNG or SVG, by the ending of `path`."""
    height = 1.6 + _LANE_IN * len(timeline.lanes) + 0.18 * len(timeline.notes)
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    scale_s = _draw_axes(axes, timeline)
    for kind in BarKind:
        bars = [bar for bar in timeline.bars if bar.kind is kind]
        _draw_bars(axes, kind, bars, scale_s)
    span_s = max(timeline.last_ns - timeline.begin_ns, 1) / 1e9 / scale_s
    for bar in timeline.bars if len(timeline.bars) <= _MAX_LABELS else ():
        _write_label(axes, timeline, bar, scale_s, span_s)
    used = [kind for kind in BarKind if any(bar.kind is kind for bar in timeline.bars)]
    patches = [
        Patch(facecolor=kind.color, edgecolor="#444444", hatch=_HATCHES.get(kind), label=kind.words) for kind in used
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=max(len(used), 1), frameon=False, fontsize=9)
    figure.suptitle(timeline.title, fontsize=11)
    axes.set_title("\n".join(timeline.notes), fontsize=8, loc="left", color="#444444")
    # Without a date and with a fixed salt, equal timelines give equal files.
    with matplotlib.rc_context({"svg.hashsalt": "laconic", "hatch.linewidth": 0.5}):
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw_axes(axes: Axes, timeline: Timeline) -> float:
    """Draw the lanes from the top down, with lines between machines. Return the seconds per unit of the axis."""
    longest_s = timeline.last_ns / 1e9
    unit, scale_s = next(((unit, scale) for unit, scale in _UNITS if longest_s >= scale), _UNITS[-1])
    axes.set_yticks(range(len(timeline.lanes)), timeline.lanes, fontsize=9)
    axes.set_ylim(len(timeline.lanes) - 0.4, -0.6)
    offset, last = timeline.begin_ns / 1e9 / scale_s, longest_s / scale_s
    axes.set_xlim(offset, last + 0.005 * (last - offset) or 1.0)
    axes.set_xlabel(f"time ({unit})")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    for number in range(1, len(timeline.lanes)):
        if timeline.lanes[number].rsplit(" ", 1)[0] != timeline.lanes[number - 1].rsplit(" ", 1)[0]:
            axes.axhline(number - 0.5, color="#BBBBBB", linewidth=0.8)
    return scale_s


def _draw_bars(axes: Axes, kind: BarKind, bars: list[Bar], scale_s: float) -> None:
    if not bars:
        return
    axes.barh(
        [bar.lane for bar in bars],
        [(bar.end_ns - bar.start_ns) / 1e9 / scale_s for bar in bars],
        left=[bar.start_ns / 1e9 / scale_s for bar in bars],
        height=0.8, color=kind.color, edgecolor="#444444", linewidth=0.4, hatch=_HATCHES.get(kind),
    )  # fmt: skip


def _write_label(axes: Axes, timeline: Timeline, bar: Bar, scale_s: float, span_s: float) -> None:
    label = timeline.label(bar)
    start, end = bar.start_ns / 1e9 / scale_s, bar.end_ns / 1e9 / scale_s
    width_in = (end - start) / span_s * (_WIDTH_IN - 1.6)
    if label and width_in > _LETTER_IN * len(label):
        axes.text((start + end) / 2, bar.lane, label, ha="center", va="center", fontsize=7.5, color="white")
