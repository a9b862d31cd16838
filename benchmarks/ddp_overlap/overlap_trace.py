"""What a trace of torch.profiler shows of an attached step: how much of the exchange lies under the backward pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from overlap_rank import BACKWARD, EXCHANGE, SLICE, STEP

from laconic.report.drawing import picture_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Span = tuple[str, int, float, float]
_SIZE_IN = 11.0, 4.2
_COLORS = {
    "forward": "#56B4E9",
    "backward": "#009E73",
    "waiting for the round's end": "#DDDDDD",
    "step of SGD": "#E69F00",
    "arithmetic of a slice": "#CC79A7",
    "sending, receiving, waiting for the other rank": "#0072B2",
}


class Trace:
    """One rank's spans in one step, in seconds since it began."""

    def __init__(self, spans: Sequence[Span]) -> None:
        """Take what `OverlapRank.trace` has returned."""
        ((_, _, start, end),) = [span for span in spans if span[0] == STEP]
        threads = sorted({span[1] for span in spans if span[0].startswith(SLICE)})

        def of(name: str) -> list[tuple[float, float]]:
            return [(begun - start, ended - start) for each, _, begun, ended in spans if each.startswith(name)]

        def by_lane(name: str) -> list[tuple[int, float, float]]:
            found = [
                (each[1], *at) for each, at in zip([s for s in spans if s[0].startswith(name)], of(name), strict=True)
            ]
            return [(threads.index(thread), begun, ended) for thread, begun, ended in found]

        self.seconds = end - start
        self.exchanges, self.slices, (self.step,) = by_lane(EXCHANGE), by_lane(SLICE), of("Optimizer.step")
        self.n_lanes = len(threads)
        layers = of(BACKWARD)
        self.backward = min(begun for begun, _ in layers), max(ended for _, ended in layers)

    def exchanging(self) -> list[tuple[float, float]]:
        """Return the times in which this rank is in an exchange, in any thread, without overlaps."""
        merged: list[tuple[float, float]] = []
        for _, start, end in sorted(self.exchanges, key=lambda span: span[1]):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((start, end))
        return merged

    def hidden(self) -> float:
        """Return the part of the time of exchanges that lies within the backward pass."""
        begun, ended = self.backward
        times = self.exchanging()
        return sum(max(0.0, min(end, ended) - max(start, begun)) for start, end in times) / _length(times)

    def bars(self) -> list[tuple[int, str, float, float]]:
        """Return what happens, from above: in the thread of the backward pass, and in that of the exchange."""
        (begun, ended), (stepped, done) = self.backward, self.step
        own = ["forward", "backward", "waiting for the round's end", "step of SGD"]
        edges = [(0.0, begun), (begun, ended), (ended, stepped), (stepped, done)]
        *_, arithmetic, exchange = _COLORS
        return [
            *((0, name, *edge) for name, edge in zip(own, edges, strict=True)),
            *((1 + lane, arithmetic, *edge) for lane, *edge in self.slices),
            *((1 + lane, exchange, *edge) for lane, *edge in self.exchanges),
        ]


def drawn(traces: Sequence[Trace], title: str) -> bytes:
    """Return a picture (SVG) of the same step on all ranks, each from its own beginning."""

    def draw(figure: "Figure") -> None:
        from matplotlib.patches import Patch

        axes = figure.subplots()
        names: list[str] = []
        for rank, trace in enumerate(traces):
            for lane, what, start, end in trace.bars():
                axes.barh(
                    len(names) + lane, 1e3 * (end - start), left=1e3 * start, height=0.8, color=_COLORS[what],
                    edgecolor="#444444", linewidth=0.4,
                )  # fmt: skip
            names += [f"rank {rank}: model", *(f"rank {rank}: lane {lane}" for lane in range(trace.n_lanes))]
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.invert_yaxis()
        axes.set_xlabel("ms since the step began")
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        patches = [Patch(facecolor=color, edgecolor="#444444", label=what) for what, color in _COLORS.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        figure.suptitle(title, fontsize=11)

    return picture_bytes(_SIZE_IN, ".svg", title, draw, small=True)


def saved(by_rank: Sequence[Sequence[Span]], path: Path, title: str) -> list[str]:
    """Draw the traces of all ranks into a file. Returns a line for each."""
    traces = [Trace(spans) for spans in by_rank]
    path.write_bytes(drawn(traces, title))
    return [
        f"rank {rank}: {100 * trace.hidden():.0f} % of {1e3 * _length(trace.exchanging()):.0f} ms "
        f"of sending and receiving lie under the backward pass, in a step of {1e3 * trace.seconds:.0f} ms"
        for rank, trace in enumerate(traces)
    ]


def _length(spans: Sequence[tuple[float, float]]) -> float:
    return sum(end - start for start, end in spans)
