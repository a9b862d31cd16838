"""Virtual time: a heap of callbacks, and a clock that jumps from one to the next.

Prior art: SimPy's core (a serial in the heap key makes ties repeatable), trio's MockClock (no real waiting).
Differs from SimPy: time is whole nanoseconds, never a float, so that sums of times are exact and two runs of
one program agree to the last bit; a callback scheduled exactly at `until_ns` still runs.

This file depends on no network and no algorithm.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable


class Clock:
    """Virtual time in whole nanoseconds, starting at 0. Nothing here waits for real time."""

    def __init__(self) -> None:
        self._now_ns = 0
        # The serial belongs to this clock, not to the module: another clock in the same program must not
        # change the order of ties here. It is unique, so the heap never compares two callbacks.
        self._serial = 0
        self._callbacks: list[tuple[int, int, Callable[[], None]]] = []

    @property
    def now_ns(self) -> int:
        """The current virtual time, in nanoseconds."""
        return self._now_ns

    @property
    def next_ns(self) -> int | None:
        """Time of the next callback in nanoseconds; None where there is none."""
        return self._callbacks[0][0] if self._callbacks else None

    @property
    def scheduled(self) -> list[tuple[int, Callable[[], None]]]:
        """The callbacks to come with their times in nanoseconds, in the order in which they will run."""
        return [(time_ns, callback) for time_ns, _, callback in sorted(self._callbacks, key=lambda one: one[:2])]

    def move_to(self, now_ns: int) -> None:
        """Continue from a saved time, before anything is scheduled.

        Args:
            now_ns: Nanoseconds of this clock.

        Raises:
            ValueError: `now_ns` is negative, or a callback is scheduled.
        """
        if now_ns < 0 or self._callbacks:
            raise ValueError(
                f"Clock.move_to: now_ns={now_ns} must be at least 0, and no callback scheduled; "
                f"{len(self._callbacks)} are"
            )
        self._now_ns = now_ns

    def at(self, time_ns: int, callback: Callable[[], None]) -> None:
        """Run a callback at a time. Callbacks of one time run in order of creation.

        Args:
            time_ns: Nanoseconds of this clock.
            callback: Called without arguments.

        Raises:
            ValueError: `time_ns` is in the past.
            TypeError: `time_ns` is not a whole number.
        """
        time_ns = _integer_ns("Clock.at: time_ns", time_ns)
        if time_ns < self._now_ns:
            raise ValueError(
                f"Clock.at: time_ns={time_ns} must not be before now_ns={self._now_ns} "
                "(for as soon as possible, use after(0, callback))"
            )
        heapq.heappush(self._callbacks, (time_ns, self._serial, callback))
        self._serial += 1

    def after(self, delay_ns: int, callback: Callable[[], None]) -> None:
        """Run a callback after a delay.

        Args:
            delay_ns: Nanoseconds from now.
            callback: Called without arguments.

        Raises:
            ValueError: `delay_ns` is negative.
            TypeError: `delay_ns` is not a whole number.
        """
        delay_ns = _integer_ns("Clock.after: delay_ns", delay_ns)
        if delay_ns < 0:
            raise ValueError(
                f"Clock.after: delay_ns={delay_ns} must be at least 0: time {self._now_ns + delay_ns} ns "
                f"is before now_ns={self._now_ns}"
            )
        self.at(self._now_ns + delay_ns, callback)

    def run(self, until_ns: int | None = None) -> None:
        """Run callbacks in order of time.

        An exception in a callback stops the run and passes to the caller. That callback does not run again; the
        others stay scheduled, and another `run` continues with them.

        Args:
            until_ns: Run callbacks up to and including this time, to which the clock then moves even if the last
                callback came earlier. None runs all.

        Raises:
            ValueError: `until_ns` is in the past.
            TypeError: `until_ns` is not a whole number.
        """
        if until_ns is not None:
            until_ns = _integer_ns("Clock.run: until_ns", until_ns)
            if until_ns < self._now_ns:
                raise ValueError(
                    f"Clock.run: until_ns={until_ns} must not be before now_ns={self._now_ns} "
                    "(the clock never goes back; use a new Clock to start again)"
                )
        while self._callbacks and (until_ns is None or self._callbacks[0][0] <= until_ns):
            self.run_next()
        if until_ns is not None:
            # A callback may have run the clock further itself; time still never goes back.
            self._now_ns = max(self._now_ns, until_ns)

    def run_next(self) -> None:
        """Run the next callback alone.

        Raises:
            ValueError: There is none.
        """
        if not self._callbacks:
            raise ValueError("Clock.run_next: no callback is scheduled (next_ns is None)")
        time_ns, _, callback = heapq.heappop(self._callbacks)
        # The clock moves first: a callback at time 5 that reads the clock, or schedules by it, must see 5.
        self._now_ns = time_ns
        callback()


def _integer_ns(name: str, value: int) -> int:
    # The heap would accept a float silently, and rounding would enter every later time.
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r} must be a whole number of nanoseconds, such as 1_500_000_000 for 1.5 s"
        ) from None
