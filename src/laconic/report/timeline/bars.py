"""Timelines: what each machine's ports do over time, as lanes of bars, and their drawing as text.

They are drawn as the figures 1.3 to 1.7, 3.4, 3.5, 4.1, 4.2, 5.2 and 5.3 of Liu and Zhang: Distributed Learning Systems
with First-Order Methods, 2020.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Any

from rich.text import Text

from laconic.network import Computation, Message, Network, TimedOperation
from laconic.report.visible import visible
from laconic.units import seconds_text

MAX_STEPS = 20_000  # of one picture
MAX_NODES = 128
_UNITS = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))


class BarKind(Enum):
    """The meaning of a bar, with its words, its color and the color of text on it.

    Colors by Okabe and Ito, safe for color-blind readers. Text has a contrast of at least 4.5.
    """

    SEND = "sending", "#0072B2", "white"
    RECEIVE = "receiving", "#D55E00", "black"
    LATENCY = "latency", "#F0E442", "black"
    WAIT = "waiting for the receiver", "#B3D4E8", "black"
    COMPUTE = "computing", "#009E73", "black"
    ENCODE = "encoding", "#CC79A7", "black"
    EXCHANGE = "sending, receiving, waiting for others", "#B3D4E8", "black"
    DECODE = "decoding, serving", "#E69F00", "black"
    EVALUATE = "evaluating", "#999999", "black"

    def __init__(self, words: str, color: str, ink: str) -> None:
        self.words = words
        self.color = color
        self.ink = ink


@dataclass(frozen=True)
class Bar:
    """A bar on a lane."""

    lane: int
    """Index into the timeline's lanes."""
    kind: BarKind
    start_ns: int
    end_ns: int
    step: int
    """Index into the timeline's steps."""


@dataclass(frozen=True)
class Stretch:
    """A recorded phase of a machine in a round of a real run."""

    node: int
    kind: BarKind
    round: int
    start_ns: int
    end_ns: int

    @property
    def requested_ns(self) -> int:
        """The start of the phase, since a run does not record requests."""
        return self.start_ns


@dataclass(frozen=True, repr=False)
class Timeline:
    """Lanes of bars, and the steps that they show."""

    title: str
    notes: tuple[str, ...]
    """Lines below the title."""
    nodes: tuple[str, ...]
    """Names of the nodes."""
    lanes: tuple[str, ...]
    """Names of the lanes."""
    steps: tuple[TimedOperation, ...] | tuple[Stretch, ...]
    bars: tuple[Bar, ...]

    def __repr__(self) -> str:
        """Return one line: a timeline can have 20,000 steps."""
        return f"{type(self).__name__}({self.title!r}, {len(self.lanes)} lanes, {len(self.steps)} steps)"

    def _repr_html_(self) -> str:
        """Return its page in a frame of a notebook, which keeps the page's style and script to itself."""
        page = import_module("laconic.report.timeline.page")  # not at the top of the file: it imports this one
        height_px = 330 + 24 * len(self.lanes)
        return (
            f'<iframe title="{html.escape(visible(self.title))}" srcdoc="{html.escape(page.timeline_page(self))}" '
            f'sandbox="allow-scripts" style="width:100%;height:{height_px}px;border:0"></iframe>'
        )

    def as_data(self) -> dict[str, Any]:
        """Return its bars with the names of their lanes and what they stand for, for JSON."""
        bars = [
            {"lane": self.lanes[bar.lane], "what": bar.kind.words, "start_s": bar.start_ns / 1e9,
             "end_s": bar.end_ns / 1e9}
            for bar in self.bars
        ]  # fmt: skip
        return {
            "title": self.title, "notes": list(self.notes), "clock": self.clock, "nodes": list(self.nodes),
            "lanes": list(self.lanes), "bars": bars,
        }  # fmt: skip

    @property
    def clock(self) -> str:
        """What the times are of: a simulated network, or a run that was recorded."""
        recorded = any(isinstance(step, Stretch) for step in self.steps)
        return "wall time since the start of the run" if recorded else "simulated time"

    @property
    def unit(self) -> tuple[str, int]:
        """The one unit of its times, and the nanoseconds in it."""
        return next((one for one in _UNITS if self.last_ns >= one[1]), _UNITS[-1])

    @property
    def kinds(self) -> list[BarKind]:
        """The kinds of its bars, as the legend lists them."""
        used = {bar.kind for bar in self.bars}
        return [kind for kind in BarKind if kind in used]

    @property
    def begin_ns(self) -> int:
        """When the first step was requested."""
        return min((step.requested_ns for step in self.steps), default=0)

    @property
    def last_ns(self) -> int:
        """When the last step ended."""
        return max((step.end_ns for step in self.steps), default=0)

    def label(self, bar: Bar) -> str:
        """Return the text on a bar: the other end of a message, or the round of a recorded computation."""
        timed = self.steps[bar.step]
        if isinstance(timed, Stretch):
            return f"round {timed.round}" if timed.kind is BarKind.COMPUTE else ""
        step = timed.step
        if not isinstance(step, Message) or bar.kind not in (BarKind.SEND, BarKind.RECEIVE):
            return ""
        return f"to {self.nodes[step.receiver]}" if bar.kind is BarKind.SEND else f"from {self.nodes[step.sender]}"


def timeline_of(
    title: str, steps: Sequence[TimedOperation], network: Network, *, nodes: Sequence[str], notes: Sequence[str] = ()
) -> Timeline:
    """Make the timeline of simulated steps, with a lane for each node's send, receive and compute port.

    Args:
        title: The title.
        steps: The timed steps.
        network: The network of the simulation.
        nodes: A name for each node of the network.
        notes: Lines below the title.

    Raises:
        ValueError: There are more steps or nodes than can be drawn.
    """
    _check_drawable(len(steps), len(nodes))
    computing = {timed.step.node for timed in steps if isinstance(timed.step, Computation)}
    lanes = [
        (node, port)
        for node in range(len(nodes))
        for port in ("send", "receive", "compute")
        if port != "compute" or node in computing
    ]
    lane_of = {lane: number for number, lane in enumerate(lanes)}
    bars = []
    send_free_ns = [0] * len(nodes)
    for number, timed in enumerate(steps):
        step, start_ns, end_ns = timed.step, timed.start_ns, timed.end_ns
        if isinstance(step, Computation):
            bars.append(Bar(lane_of[step.node, "compute"], BarKind.COMPUTE, start_ns, end_ns, number))
        elif step.sender != step.receiver:
            link = network.link_between(step.sender, step.receiver)
            moving_ns = min(end_ns, start_ns + link.duration_ns(0))
            for lane, kind in (
                (lane_of[step.sender, "send"], BarKind.SEND),
                (lane_of[step.receiver, "receive"], BarKind.RECEIVE),
            ):
                bars.append(Bar(lane, BarKind.LATENCY, start_ns, moving_ns, number))
                bars.append(Bar(lane, kind, moving_ns, end_ns, number))
            waits_ns = max(timed.requested_ns, send_free_ns[step.sender])
            bars.append(Bar(lane_of[step.sender, "send"], BarKind.WAIT, waits_ns, start_ns, number))
            send_free_ns[step.sender] = max(send_free_ns[step.sender], end_ns)
    names = tuple(f"{nodes[node]} {port}" for node, port in lanes)
    shown = tuple(bar for bar in bars if bar.end_ns > bar.start_ns)
    return Timeline(title, tuple(notes), tuple(nodes), names, tuple(steps), shown)


def timeline_of_stretches(
    title: str, stretches: Sequence[Stretch], *, nodes: Sequence[str], notes: Sequence[str] = ()
) -> Timeline:
    """Make the timeline of recorded phases, with one lane per machine.

    Raises:
        ValueError: There are more phases or machines than can be drawn.
    """
    _check_drawable(len(stretches), len(nodes))
    bars = [
        Bar(stretch.node, stretch.kind, stretch.start_ns, stretch.end_ns, number)
        for number, stretch in enumerate(stretches)
        if stretch.end_ns > stretch.start_ns
    ]
    return Timeline(title, tuple(notes), tuple(nodes), tuple(nodes), tuple(stretches), tuple(bars))


def _check_drawable(n_steps: int, n_nodes: int) -> None:
    if n_steps > MAX_STEPS or n_nodes > MAX_NODES:
        raise ValueError(
            f"{n_steps} steps on {n_nodes} machines are too many for a picture; at most {MAX_STEPS} steps and "
            f"{MAX_NODES} machines are drawn, so take fewer workers or rounds"
        )


# One letter, one meaning: a pipe, and many readers, see no color. The second is for terminals with ASCII alone.
_LETTERS = {
    BarKind.SEND: "█#", BarKind.RECEIVE: "▓%", BarKind.LATENCY: "░:", BarKind.WAIT: "·.", BarKind.COMPUTE: "▒+",
    BarKind.ENCODE: "▀^", BarKind.EXCHANGE: "─-", BarKind.DECODE: "▄v", BarKind.EVALUATE: "═=",
}  # fmt: skip


def in_letters(timeline: Timeline, width: int, *, ascii_only: bool = False) -> Text:
    """Return the lanes as lines of `width` characters. Each column shows what happens at its middle."""
    letter_of = {kind: letters[ascii_only] for kind, letters in _LETTERS.items()}
    label_width = max(len(lane) for lane in timeline.lanes) + 1
    columns = max(width - label_width - 1, 10)
    begin_ns, span_ns = timeline.begin_ns, max(timeline.last_ns - timeline.begin_ns, 1)
    letters = [[" "] * columns for _ in timeline.lanes]
    styles = [[""] * columns for _ in timeline.lanes]
    for bar in timeline.bars:
        begin, end = (round((time_ns - begin_ns) * columns / span_ns) for time_ns in (bar.start_ns, bar.end_ns))
        label = timeline.label(bar)
        style = bar.kind.color
        for column in range(begin, end):
            letters[bar.lane][column], styles[bar.lane][column] = letter_of[bar.kind], style
        at = begin + (end - begin - len(label)) // 2
        if label and end - begin >= len(label) + 2:
            for column, letter in enumerate(label, at):
                letters[bar.lane][column], styles[bar.lane][column] = letter, f"bold {bar.kind.ink} on {style}"
    text = Text.assemble((visible(timeline.title), "bold"), "\n")
    for name, line, line_styles in zip(timeline.lanes, letters, styles, strict=True):
        text.append(f"{name:<{label_width}}")
        for letter, style in zip(line, line_styles, strict=True):
            text.append(letter, style or None)
        text.append("\n")
    begin_text, end_text = seconds_text(begin_ns / 1e9), seconds_text(timeline.last_ns / 1e9)
    between = columns - len(begin_text) - len(end_text)
    clock = timeline.clock if between > len(timeline.clock) + 1 else ""
    text.append(f"{'':{label_width}}{begin_text}{clock:^{max(between, 1)}}{end_text}\n")
    for number, kind in enumerate(timeline.kinds):
        text.append("   " * (number > 0))
        text.append(f"{letter_of[kind]} ", kind.color)
        text.append(kind.words)
    text.append("\n")
    for note in timeline.notes:
        text.append(visible(note) + "\n")
    return text
