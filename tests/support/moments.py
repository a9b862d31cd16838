"""A rank that dies at a moment that a seed chooses: at some call, of any function, within the next rounds."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class Moments:
    """Counts this process's calls, and kills it at one of them."""

    def __init__(self) -> None:
        self.n_calls = 0
        self._deadly: int | None = None

    def count(self, action: Callable[[], object]) -> int:
        """Return how many calls an action makes, of Python's functions and of compiled ones."""
        self.n_calls = 0
        sys.setprofile(self._note)
        try:
            action()
        finally:
            sys.setprofile(None)
        return self.n_calls

    def die_after(self, n_calls: int) -> None:
        """Kill this process after so many more calls, without a word to anybody."""
        self.n_calls, self._deadly = 0, n_calls
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            self.n_calls += 1
            if self.n_calls == self._deadly:
                os.kill(os.getpid(), signal.SIGKILL)
