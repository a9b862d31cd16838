"""The named timelines, with the settings of their figures in the monograph.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020. Its examples count machines from 1 and
time in units; here M1 is node 0 and a unit is a second.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from laconic.network import (
    PATTERNS,
    Link,
    MessageSchedule,
    Network,
    TimedOperation,
    closed_form_s,
    example_1_3_1,
    example_1_3_4,
    rounds,
    simulate,
)
from laconic.protocol.async_timing import AsyncServer, async_period_s, sync_iteration_s
from laconic.report.timeline.bars import MAX_NODES, Timeline, timeline_of
from laconic.units import bytes_text, seconds_text


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a timeline."""

    workers: int
    latency_s: float
    n_bytes: int
    """The size of the full vector."""
    bytes_per_s: float
    compute_s: tuple[float, ...] = ()
    """Seconds of a gradient: one time for all workers, or one for each. Empty for no computing."""
    rounds: int = 1
    """Rounds, or updates per worker of an asynchronous server."""

    @property
    def link(self) -> Link:
        """The link of every machine."""
        return Link(bytes_per_s=self.bytes_per_s, latency_s=self.latency_s)

    @property
    def transfer_s(self) -> float:
        """Seconds to transfer the full vector, without latency."""
        return self.n_bytes / self.bytes_per_s

    @property
    def compute_ns(self) -> tuple[int, ...]:
        """Nanoseconds of a gradient, by worker."""
        seconds = self.compute_s * self.workers if len(self.compute_s) == 1 else self.compute_s
        return tuple(round(one * 1e9) for one in seconds)


@dataclass(frozen=True)
class Named:
    """A named timeline."""

    about: str
    """One line on what it shows."""
    source: str
    """Section or figure of the monograph."""
    settings: Settings
    """The default settings."""
    draw: Callable[[str, Settings], Timeline]
    fixed: bool = False
    """Whether the number of machines is fixed."""


def draw_steps(
    title: str, steps: MessageSchedule, settings: Settings, *, server: bool, notes: tuple[str, ...]
) -> Timeline:
    """Simulate a message schedule on equal links and make its timeline.

    Args:
        title: The title.
        steps: The message schedule.
        settings: The number of workers and their links.
        server: Whether the last node is a server beside the workers.
        notes: Further lines below the title.

    Raises:
        ValueError: There are more machines than can be drawn.
    """
    n_nodes = settings.workers + server
    if n_nodes > MAX_NODES:
        raise ValueError(f"{n_nodes} machines are too many for a picture; at most {MAX_NODES} are drawn")
    network = Network(n_nodes, settings.link)
    timed = simulate(steps, network).of(steps)
    span_s = (max(one.end_ns for one in timed) - min(one.requested_ns for one in timed)) / 1e9 if timed else 0.0
    span = f"{_time_text(span_s)} from the first request to the end"
    return timeline_of(title, timed, network, nodes=_names(settings.workers, server), notes=(span, *notes))


def _names(workers: int, server: bool) -> list[str]:
    return [f"M{number + 1}" for number in range(workers)] + ["server"] * server


def _time_text(seconds: float) -> str:
    return f"{round(seconds, 9):.12g} s" if seconds >= 1 or seconds == 0 else seconds_text(seconds)


def _setting_text(settings: Settings) -> str:
    parts = [f"{settings.workers} workers", bytes_text(settings.n_bytes)]
    parts += [f"latency {_time_text(settings.latency_s)}", f"transfer {_time_text(settings.transfer_s)}"]
    if settings.compute_s:
        parts.append("compute " + ", ".join(_time_text(one) for one in settings.compute_s))
    return ", ".join(parts)


def _pattern(pattern: str, ratio: int = 1) -> Callable[[str, Settings], Timeline]:
    """Return a function that draws a pattern of PATTERNS, or rounds of training with it. `ratio` divides the bytes."""

    def draw(name: str, settings: Settings) -> Timeline:
        chosen = PATTERNS[pattern]
        sent = replace(settings, n_bytes=settings.n_bytes // ratio)
        steps = chosen.message_schedule(sent.workers, sent.n_bytes)
        exchange_s = closed_form_s(pattern, sent.workers, sent.latency_s, sent.transfer_s)
        notes = [f"one exchange by the closed form: {_time_text(exchange_s)}"]
        if settings.compute_s or settings.rounds > 1:
            steps = rounds(steps, settings.compute_ns or (0,) * settings.workers, settings.rounds)
        if chosen.has_server and settings.compute_s:
            slowest_s = max(settings.compute_s)
            round_s = sync_iteration_s(sent.workers, sent.latency_s, sent.transfer_s, slowest_s)
            notes.append(f"one round by the closed form: {_time_text(round_s)}, {sent.workers} gradients")
        title = f"{name}: {_setting_text(sent)}"
        return draw_steps(title, steps, sent, server=chosen.has_server, notes=tuple(notes))

    return draw


def _example_1_3_1(third: int, ratio: int = 1) -> Callable[[str, Settings], Timeline]:
    def draw(name: str, settings: Settings) -> Timeline:
        sent = replace(settings, n_bytes=settings.n_bytes // ratio)
        return draw_steps(
            f"{name}: {_setting_text(sent)}", example_1_3_1(sent.n_bytes, third), sent, server=False, notes=()
        )

    return draw


def _draw_example_1_3_4(name: str, settings: Settings) -> Timeline:
    title = f"{name}: {_setting_text(settings)}"
    return draw_steps(title, example_1_3_4(settings.n_bytes), settings, server=False, notes=())


def _draw_async(name: str, settings: Settings) -> Timeline:
    network = Network(settings.workers + 1, settings.link)
    steps: list[TimedOperation] = []
    compute_ns = settings.compute_ns or (0,) * settings.workers
    server = AsyncServer(
        network,
        settings.workers,
        compute_ns=lambda worker, step: compute_ns[worker],
        download_bytes=lambda worker: settings.n_bytes,
        upload_bytes=lambda worker: settings.n_bytes,
        timed=steps.append,
    )
    updates = server.run(settings.workers * settings.rounds)
    end_ns = updates[-1].time_ns
    # A step that continues after the last update is drawn up to it.
    shown = [replace(one, end_ns=min(one.end_ns, end_ns)) for one in steps if one.start_ns < end_ns]
    listed = ", ".join(f"{one.time_ns / 1e9:g} s M{one.worker + 1} ({one.staleness})" for one in updates[:12])
    notes = [f"updates, with staleness: {listed}{', ...' if len(updates) > 12 else ''}"]
    if len(set(compute_ns)) == 1:
        period_s = async_period_s(settings.workers, settings.latency_s, settings.transfer_s, compute_ns[0] / 1e9)
        notes.append(f"a worker's period by the closed form: {_time_text(period_s)}, {settings.workers} gradients")
    title = f"{name}: {_setting_text(settings)}"
    return timeline_of(title, shown, network, nodes=_names(settings.workers, True), notes=notes)


_SERVER = Settings(workers=3, latency_s=1.0, n_bytes=1_000_000, bytes_per_s=500_000.0, compute_s=(4.0, 4.0, 20.0))
_PRINTED = Settings(workers=3, latency_s=1.5, n_bytes=1_000_000, bytes_per_s=200_000.0)
_FOUR = replace(_PRINTED, workers=4)
_TRAINING = replace(_FOUR, compute_s=(5.0,), rounds=2)

NAMED = {
    "example-1.3.1": Named("three messages, the third waits: 14 s", "figure 1.3", _PRINTED, _example_1_3_1(0), True),
    "example-1.3.1-table": Named(
        "the same as in the table, the third to M2: 13 s", "example 1.3.1", _PRINTED, _example_1_3_1(1), True
    ),
    "example-1.3.2": Named("half the bytes: 9 s", "figure 1.4", _PRINTED, _example_1_3_1(0, ratio=2), True),
    "example-1.3.4": Named(
        "four machines that each serve a partition, as published", "example 1.3.4", _FOUR, _draw_example_1_3_4, True
    ),
    "single-server": Named("all workers with one server", "figure 1.6", _PRINTED, _pattern("single-server")),
    "ring": Named("ring all-reduce", "figure 1.7, example 1.3.3", _FOUR, _pattern("ring")),
    "ring-unpartitioned": Named(
        "the ring without partitions of the vector", "section 1.3.3", _FOUR, _pattern("ring-unpartitioned")
    ),
    "sharded": Named("every worker serves a partition", "section 1.3.4", _FOUR, _pattern("sharded")),
    "compressed-sharded": Named("the same with half the bytes", "figure 3.2", _FOUR, _pattern("sharded", ratio=2)),
    "training-ring": Named("rounds of computing and all-reduce", "figures 3.4, 5.2", _TRAINING, _pattern("ring")),
    "compressed-ring": Named("the same with half the bytes", "figure 3.5", _TRAINING, _pattern("ring", ratio=2)),
    "gossip-ring": Named("the same with the two neighbors only", "figure 5.3", _TRAINING, _pattern("gossip-ring")),
    "sync-server": Named(
        "rounds with one server, a slow worker", "figure 4.1", replace(_SERVER, rounds=2), _pattern("single-server")
    ),
    "async-server": Named("the same workers without rounds", "figure 4.2", replace(_SERVER, rounds=4), _draw_async),
}


def draw_named(name: str, settings: Settings) -> Timeline:
    """Make the timeline of this name in NAMED with these settings."""
    return NAMED[name].draw(name, settings)


def draw_message_schedule(title: str, steps: MessageSchedule, link: Link) -> Timeline:
    """Make the timeline of a message schedule on equal links, with the machines that it names."""
    n_nodes = 1 + max(int(steps.node.max()), int(steps.receiver.max()))
    settings = Settings(workers=n_nodes, latency_s=link.latency_s, n_bytes=0, bytes_per_s=link.bytes_per_s)
    return draw_steps(title, steps, settings, server=False, notes=())
