"""Which cell of a comparison is started next, and how long the rest will take: learned from the cells that ended."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from laconic.lab.comparison.memory import resident_bytes
from laconic.lab.processes.pool import PoolTask

_TELLING = 0.05  # the share of a cell after which its pace says how long it takes


@dataclass
class _Running:
    pid: int | None
    """None on another machine."""
    since_s: float
    start_bytes: int
    """What it had in memory at its start, which it shares with the others."""
    begun: tuple[float, float] | None = None
    """When it took its first step, and the share of its steps that were taken then, in earlier processes too."""
    share: float = 0.0
    """Of its steps that are taken."""

    @property
    def bytes_now(self) -> int:
        """What it has in memory, as far as that is known."""
        return 0 if self.pid is None else resident_bytes(self.pid) or 0


class CellQueue:
    """The cells that run, and what is known of those that wait.

    Cells of one kind (a variant with one partition) take about the same time and memory. The kinds that take longest
    are started first, so that no long one is left at the end; unknown ones before them, so that they become known.
    """

    def __init__(self, kinds: Mapping[str, str], estimates: Mapping[str, int], memory_bytes: int | None) -> None:
        """Start with nothing measured.

        Args:
            kinds: By the label of a task, its kind.
            estimates: By kind, the memory that one is thought to take until one has been measured, in bytes.
            memory_bytes: What all processes together may have in memory; None for no bound.
        """
        self._kinds, self._estimates, self._memory_bytes = kinds, estimates, memory_bytes
        self._running: dict[str, _Running] = {}
        self._seconds: dict[str, list[float]] = {}
        self._bytes: dict[str, int] = {}  # beside what it shares
        self.highest_bytes = 0
        """The most that all processes had in memory at once. What they share counts once."""

    def choose(self, waiting: Sequence[PoolTask]) -> PoolTask | None:
        """Return the next task to start; None if none fits into the memory beside those that run."""
        ordered = sorted(waiting, key=lambda task: -self._expected_s(self._kinds[task.label], math.inf))
        if not self._running:
            return ordered[0]
        return next((task for task in ordered if self._fits(task)), None)

    def started(self, task: PoolTask, pid: int | None) -> None:
        """Note that a task has begun, in a process of this machine or in another one's."""
        running = _Running(pid, time.monotonic(), 0)
        running.start_bytes = running.bytes_now
        self._running[task.label] = running
        self.look()

    def progressed(self, label: str, share: float) -> None:
        """Note the share of its steps that a task has taken."""
        running = self._running[label]
        running.begun, running.share = running.begun or (time.monotonic(), share), share
        self.look()

    def ended(self, label: str, own_bytes: int | None) -> float:
        """Note that a task has ended, with how much memory beside what it shares. Return the seconds it has run."""
        ran = self._running.pop(label)
        seconds, kind = time.monotonic() - ran.since_s, self._kinds[label]
        if own_bytes is not None:
            earlier = 0.0 if ran.begun is None else ran.begun[1]
            full = seconds / (1 - earlier) if earlier < 1 - _TELLING else seconds
            self._seconds.setdefault(kind, []).append(full)
            self._bytes[kind] = max(own_bytes, self._bytes.get(kind, 0))
        return seconds

    def look(self) -> None:
        """Look how much memory is taken now."""
        now = (resident_bytes() or 0) + max((each.start_bytes for each in self._running.values()), default=0)
        self.highest_bytes = max(self.highest_bytes, now + sum(map(self._own_bytes, self._running)))

    def seconds_left(self, waiting: Sequence[str], at_once: int) -> float | None:
        """Return how long the rest takes; None while nothing is known.

        Args:
            waiting: The labels of the tasks that are not started.
            at_once: The number of tasks that run at once.
        """
        known = [seconds for of_kind in self._seconds.values() for seconds in of_kind]
        known += [each for label in self._running if (each := self._by_pace(label)) is not None]
        if not known:
            return None
        usual = fmean(known)
        now = time.monotonic()
        rest = sum(self._expected_s(self._kinds[label], usual) for label in waiting)
        for label, ran in self._running.items():
            pace_s = self._by_pace(label)
            expected_s = self._expected_s(self._kinds[label], usual) - (now - ran.since_s)
            rest += max(0.0, expected_s) if pace_s is None else pace_s * (1 - ran.share)
        return rest / min(at_once, len(waiting) + len(self._running) or 1)

    def _by_pace(self, label: str) -> float | None:
        """Return how long all steps take at the pace of those that were taken; None where that does not tell much."""
        ran = self._running[label]
        if ran.begun is None or ran.share - ran.begun[1] <= _TELLING:
            return None
        return (time.monotonic() - ran.begun[0]) / (ran.share - ran.begun[1])

    def _expected_s(self, kind: str, otherwise: float) -> float:
        return fmean(self._seconds[kind]) if kind in self._seconds else otherwise

    def _fits(self, task: PoolTask) -> bool:
        """Return whether there is memory for one more beside those that run."""
        if self._memory_bytes is None:
            return True
        taken = (resident_bytes() or 0) + max(each.start_bytes for each in self._running.values())
        taken += sum(max(self._own_bytes(label), self._expected_bytes(label)) for label in self._running)
        return taken + self._expected_bytes(task.label) <= self._memory_bytes

    def _expected_bytes(self, label: str) -> int:
        kind = self._kinds[label]
        return self._bytes.get(kind, self._estimates.get(kind, 0))

    def _own_bytes(self, label: str) -> int:
        ran = self._running[label]
        return max(0, ran.bytes_now - ran.start_bytes)
