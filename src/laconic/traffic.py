"""What `opt.traffic` returns: a snapshot of the counters, as data."""

from dataclasses import asdict, dataclass
from typing import Any

from laconic.wire import Count, Meter


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One worker's totals since the start, or several workers' added up.

    up: from the worker to the server; down: to the worker; setup: the first parameters. rounds: rounds tried;
    void_rounds: those that all ranks skipped because one met inf or NaN; seconds: compute, encode, wait, decode;
    control_bytes: what agreements took (settings, hash checks, these totals themselves), in none of the counts.
    """

    up: Count
    down: Count
    setup: Count
    rounds: int
    void_rounds: int
    seconds: dict[str, float]
    control_bytes: int = 0

    @classmethod
    def of(
        cls, meter: Meter, rounds: int, void_rounds: int, seconds: dict[str, float], control_bytes: int = 0
    ) -> "Traffic":
        """A snapshot."""
        return cls(**meter.counts, rounds=rounds, void_rounds=void_rounds, seconds=seconds, control_bytes=control_bytes)

    def __add__(self, other: "Traffic") -> "Traffic":
        """Two workers of one job: counts add up, rounds are the same rounds, times are the longer ones."""
        return Traffic(
            up=self.up + other.up,
            down=self.down + other.down,
            setup=self.setup + other.setup,
            rounds=max(self.rounds, other.rounds),
            void_rounds=max(self.void_rounds, other.void_rounds),
            control_bytes=self.control_bytes + other.control_bytes,
            seconds={name: max(value, other.seconds[name]) for name, value in self.seconds.items()},
        )

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Traffic":
        """The inverse of `as_data`."""
        counts = {name: Count(**data[name]) for name in ("up", "down", "setup")}
        return cls(**(data | counts))

    def as_data(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, for JSON."""
        return asdict(self)
