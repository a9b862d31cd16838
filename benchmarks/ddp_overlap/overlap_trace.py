"""What a trace of torch.profiler shows of an attached step: how much of the exchange lies under the backward pass."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from overlap_rank import BACKWARD, EXCHANGE, SLICE, STEP

from laconic.report.drawing import picture_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Span = tuple[str, float, float]
_SIZE_IN = 11.0, 3.6
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
        ((_, start, end),) = [span for span in spans if span[0] == STEP]

        def of(name: str) -> list[tuple[float, float]]:
            return [(begun - start, ended - start) for each, begun, ended in spans if each.startswith(name)]

        self.seconds = end - start
        self.exchanges, self.slices, (self.step,) = of(EXCHANGE), of(SLICE), of("Optimizer.step")
        layers = of(BACKWARD)
        self.backward = min(begun for begun, _ in layers), max(ended for _, ended in layers)

    def hidden(self) -> float:
        """Return the part of the time of exchanges that lies within the backward pass."""
        begun, ended = self.backward
        inside = sum(max(0.0, min(end, ended) - max(start, begun)) for start, end in self.exchanges)
        return inside / sum(end - start for start, end in self.exchanges)

    def bars(self) -> list[tuple[int, str, float, float]]:
        """Return what happens, from above: in the thread of the backward pass, and in that of the exchange."""
        (begun, ended), (stepped, done) = self.backward, self.step
        own = ["forward", "backward", "waiting for the round's end", "step of SGD"]
        edges = [(0.0, begun), (begun, ended), (ended, stepped), (stepped, done)]
        *_, arithmetic, exchange = _COLORS
        return [
            *((0, name, *edge) for name, edge in zip(own, edges, strict=True)),
            *((1, arithmetic, *edge) for edge in self.slices),
            *((1, exchange, *edge) for edge in self.exchanges),
        ]


def drawn(traces: Sequence[Trace], title: str) -> bytes:
    """Return a picture (SVG) of the same step on all ranks, each from its own beginning."""

    def draw(figure: "Figure") -> None:
        from matplotlib.patches import Patch

        axes = figure.subplots()
        for rank, trace in enumerate(traces):
            for lane, what, start, end in trace.bars():
                axes.barh(
                    2 * rank + lane, 1e3 * (end - start), left=1e3 * start, height=0.8, color=_COLORS[what],
                    edgecolor="#444444", linewidth=0.4,
                )  # fmt: skip
        names = [name for rank in range(len(traces)) for name in (f"rank {rank}: model", f"rank {rank}: exchange")]
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
        f"rank {rank}: {100 * trace.hidden():.0f} % of {1e3 * sum(end - start for start, end in trace.exchanges):.0f} "
        f"ms of sending and receiving lie under the backward pass, in a step of {1e3 * trace.seconds:.0f} ms"
        for rank, trace in enumerate(traces)
    ]
