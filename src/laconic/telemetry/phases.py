"""The time that a rank spends in each phase of its rounds, in seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(kw_only=True)
class Seconds:
    """This rank's time by phase, in seconds since the start."""

    compute: float = 0.0
    """Between rounds: the user's forward and backward passes; and within one a second evaluation of a mini-batch."""
    encode: float = 0.0
    wait: float = 0.0
    """Sending, receiving, and waiting for others."""
    decode: float = 0.0
    phases: list[tuple[str, float, float]] | None = field(default=None, repr=False)
    """Name, start and end of every phase, if they are to be recorded."""
    _since: float = field(default_factory=time.perf_counter, repr=False)

    def phase(self, name: str) -> None:
        """End a phase: add the time since the last one ended to the sum of that name."""
        now = time.perf_counter()
        self.__dict__[name] += now - self._since
        if self.phases is not None:
            self.phases.append((name, self._since, now))
        self._since = now

    def computing(self, function: Callable[P, T]) -> Callable[P, T]:
        """Return a function whose calls, amid a phase "encode", count as computing."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            self.phase("encode")
            made = function(*args, **kwargs)
            self.phase("compute")
            return made

        return timed

    def sums(self) -> dict[str, float]:
        """Return the sums by name."""
        return {"compute": self.compute, "encode": self.encode, "wait": self.wait, "decode": self.decode}

    def go_on(self, sums: Mapping[str, float]) -> None:
        """Add what `sums` has returned before a break."""
        for name, seconds in sums.items():
            setattr(self, name, getattr(self, name) + seconds)
