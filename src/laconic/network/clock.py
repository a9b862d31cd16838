"""Virtual time: a heap of things to do, and a clock that jumps from one to the next.

Prior art: SimPy's core (a serial in the heap key makes ties repeatable), trio's MockClock (no real waiting).
Differs from SimPy: time is whole nanoseconds, never a float, so that sums of times are exact and two runs of
one program agree to the last bit; what is due exactly at `until_ns` still runs.

Knows no network and no algorithm.
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
        """When the next callback is due; None where nothing is."""
        return self._callbacks[0][0] if self._callbacks else None

    def at(self, time_ns: int, callback: Callable[[], None]) -> None:
        """Run `callback` when the clock reads `time_ns`; callbacks due at one time run in order of creation.

        Raises ValueError if `time_ns` is in the past, TypeError if it is not a whole number.
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
        """Run `callback` when `delay_ns` nanoseconds have passed from now.

        Raises ValueError if `delay_ns` is negative, TypeError if it is not a whole number.
        """
        delay_ns = _integer_ns("Clock.after: delay_ns", delay_ns)
        if delay_ns < 0:
            raise ValueError(
                f"Clock.after: delay_ns={delay_ns} must be at least 0: time {self._now_ns + delay_ns} ns "
                f"is before now_ns={self._now_ns}"
            )
        self.at(self._now_ns + delay_ns, callback)

    def run(self, until_ns: int | None = None) -> None:
        """Run what is due, in order of time, up to and including `until_ns` (None: until nothing is left).

        With `until_ns` the clock reads `until_ns` at the end, even if the last callback came earlier. An
        exception in a callback stops the run there and passes to the caller; that callback is spent, the
        others stay due, and a further `run` goes on with them.
        Raises ValueError if `until_ns` is in the past, TypeError if it is not a whole number.
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
        """Run the one callback that is due first.

        Raises ValueError where nothing is due.
        """
        if not self._callbacks:
            raise ValueError("Clock.run_next: nothing is due (next_ns is None)")
        time_ns, _, callback = heapq.heappop(self._callbacks)
        # The clock moves first: a callback due at 5 that reads the clock, or schedules by it, must see 5.
        self._now_ns = time_ns
        callback()


def _integer_ns(name: str, value: int) -> int:
    # A float would be taken by the heap without a word, and bring rounding back into every later time.
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name}={value!r} must be a whole number of nanoseconds, such as 1_500_000_000 for 1.5 s"
        ) from None
