"""How long a rank spends in each phase of its rounds, in seconds."""

import time
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Seconds:
    """Where this rank's time went, in seconds since the start."""

    compute: float = 0.0  # between rounds: the user's forward and backward
    encode: float = 0.0
    wait: float = 0.0  # sending, receiving, waiting for others
    decode: float = 0.0
    phases: list[tuple[str, float, float]] | None = field(default=None, repr=False)  # name, start, end, where wanted
    _since: float = field(default_factory=time.perf_counter, repr=False)

    def phase(self, name: str) -> None:
        """Add the time since the last lap to one of the sums."""
        now = time.perf_counter()
        setattr(self, name, getattr(self, name) + now - self._since)
        if self.phases is not None:
            self.phases.append((name, self._since, now))
        self._since = now

    def sums(self) -> dict[str, float]:
        """The sums as plain data."""
        return {"compute": self.compute, "encode": self.encode, "wait": self.wait, "decode": self.decode}
