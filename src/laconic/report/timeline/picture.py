"""A timeline as a picture: PNG, SVG or PDF."""

from typing import TYPE_CHECKING

from laconic.report.drawing import picture_bytes, wrapped
from laconic.report.timeline.bars import Bar, BarKind, Timeline
from laconic.report.visible import for_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_IN = 11.0
_LANE_IN = 0.30
_TITLE, _NOTE = 110, 150  # letters of a line
_LETTER_IN = 0.075  # width of a label's letter
_MAX_LABELS = 1_500  # with more bars, none has a label
# Hatching distinguishes latency and waiting without color.
_HATCHES = {BarKind.LATENCY: "....", BarKind.WAIT: "////", BarKind.EXCHANGE: "////"}


def draw_timeline(timeline: Timeline, ending: str, *, small: bool = False) -> bytes:
    """Return the picture. `ending` is ".png", ".svg" or ".pdf"; `small` as of `picture_bytes`."""
    notes = [wrapped(note, _NOTE) for note in timeline.notes]
    n_lines = sum(1 + note.count("\n") for note in notes)
    height_in = 1.6 + _LANE_IN * len(timeline.lanes) + 0.18 * n_lines

    def draw(figure: "Figure") -> None:
        from matplotlib.patches import Patch

        axes = figure.subplots()
        scale_s = _draw_axes(axes, timeline)
        for kind in BarKind:
            _draw_bars(axes, kind, [bar for bar in timeline.bars if bar.kind is kind], scale_s)
        span_s = max(timeline.last_ns - timeline.begin_ns, 1) / 1e9 / scale_s
        for bar in timeline.bars if len(timeline.bars) <= _MAX_LABELS else ():
            _write_label(axes, timeline, bar, scale_s, span_s)
        patches = [
            Patch(facecolor=kind.color, edgecolor="#444444", hatch=_HATCHES.get(kind), label=kind.words)
            for kind in timeline.kinds
        ]
        columns = max(len(patches), 1)
        figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
        figure.suptitle(wrapped(timeline.title, _TITLE), fontsize=11)
        axes.set_title("\n".join(notes), fontsize=8, loc="left", color="#444444")

    return picture_bytes((_WIDTH_IN, height_in), ending, timeline.title, draw, small=small)


def _draw_axes(axes: "Axes", timeline: Timeline) -> float:
    """Draw the lanes from the top down, with lines between machines. Return the seconds per unit of the axis."""
    unit, scale_ns = timeline.unit
    longest_s, scale_s = timeline.last_ns / 1e9, scale_ns / 1e9
    axes.set_yticks(range(len(timeline.lanes)), [*map(for_matplotlib, timeline.lanes)], fontsize=9)
    axes.set_ylim(len(timeline.lanes) - 0.4, -0.6)
    offset, last = timeline.begin_ns / 1e9 / scale_s, longest_s / scale_s
    axes.set_xlim(offset, last + 0.005 * (last - offset) or 1.0)
    axes.set_xlabel(f"{timeline.clock} ({unit})")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    for number in range(1, len(timeline.lanes)):
        if timeline.lanes[number].rsplit(" ", 1)[0] != timeline.lanes[number - 1].rsplit(" ", 1)[0]:
            axes.axhline(number - 0.5, color="#BBBBBB", linewidth=0.8)
    return scale_s


def _draw_bars(axes: "Axes", kind: BarKind, bars: list[Bar], scale_s: float) -> None:
    if not bars:
        return
    axes.barh(
        [bar.lane for bar in bars],
        [(bar.end_ns - bar.start_ns) / 1e9 / scale_s for bar in bars],
        left=[bar.start_ns / 1e9 / scale_s for bar in bars],
        height=0.8, color=kind.color, edgecolor="#444444", linewidth=0.4, hatch=_HATCHES.get(kind),
    )  # fmt: skip


def _write_label(axes: "Axes", timeline: Timeline, bar: Bar, scale_s: float, span_s: float) -> None:
    label = timeline.label(bar)
    start, end = bar.start_ns / 1e9 / scale_s, bar.end_ns / 1e9 / scale_s
    width_in = (end - start) / span_s * (_WIDTH_IN - 1.6)
    if label and width_in > _LETTER_IN * len(label):
        axes.text(
            (start + end) / 2, bar.lane, for_matplotlib(label), ha="center", va="center", fontsize=7.5,
            color=bar.kind.ink,
        )  # fmt: skip
