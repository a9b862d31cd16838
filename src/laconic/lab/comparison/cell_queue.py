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
    pid: int
    since_s: float
    start_bytes: int
    """What it had in memory at its start, which it shares with the others."""
    share: float = 0.0
    """Of its steps that are taken."""


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

    def started(self, task: PoolTask, pid: int) -> None:
        """Note that a task has begun."""
        self._running[task.label] = _Running(pid, time.monotonic(), resident_bytes(pid) or 0)
        self.look()

    def progressed(self, label: str, share: float) -> None:
        """Note the share of its steps that a task has taken."""
        self._running[label].share = share
        self.look()

    def ended(self, label: str, own_bytes: int | None) -> float:
        """Note that a task has ended, with how much memory beside what it shares. Return the seconds it has run."""
        ran = self._running.pop(label)
        seconds, kind = time.monotonic() - ran.since_s, self._kinds[label]
        if own_bytes is not None:
            self._seconds.setdefault(kind, []).append(seconds)
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
            total_s = self._by_pace(label) or self._expected_s(self._kinds[label], usual)
            rest += max(0.0, total_s - (now - ran.since_s))
        return rest / min(at_once, len(waiting) + len(self._running) or 1)

    def _by_pace(self, label: str) -> float | None:
        ran = self._running[label]
        return (time.monotonic() - ran.since_s) / ran.share if ran.share > _TELLING else None

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
        return max(0, (resident_bytes(ran.pid) or 0) - ran.start_bytes)
