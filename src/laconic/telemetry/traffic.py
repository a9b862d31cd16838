"""The snapshot of the traffic counters that `opt.traffic` returns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from laconic.telemetry.meter import Count, Meter
from laconic.telemetry.phases import Seconds

Key = TypeVar("Key")

_COUNT_SCHEMA = {field.name: int | float for field in fields(Count)}
TRAFFIC_SCHEMA = {
    "up": _COUNT_SCHEMA, "down": _COUNT_SCHEMA, "setup": _COUNT_SCHEMA, "rounds": int, "aborted_rounds": int,
    "seconds": dict.fromkeys(Seconds().sums(), int | float), "control_bytes": int, "replica_syncs": int,
    "up_by_exchange": {str: _COUNT_SCHEMA}, "down_by_exchange": {str: _COUNT_SCHEMA}, 
    "faults": {str: int}, "staleness": {int: int}, "updates": {str: int},
}  # fmt: skip
"""What `Traffic.as_data` of another rank must fit: see `drivers/gathered.py`."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One worker's totals since the start, or the sum over several workers.

    In distributed runs of asynchronous methods, the server counts `staleness` and `updates`.
    """

    up: Count
    """From the worker to the server."""
    down: Count
    """From the server to the worker."""
    setup: Count
    """The initial parameters."""
    rounds: int
    """Number of rounds, aborted ones included."""
    aborted_rounds: int
    """Rounds without effect because a rank met inf or NaN; single gradients if the method is asynchronous."""
    seconds: dict[str, float]
    """Time by phase: compute, encode, wait, decode."""
    control_bytes: int = 0
    """Bytes for settings, hash checks and these totals themselves; they are in none of the counts."""
    replica_syncs: int = 0
    """Checks in which replicas that differed by rounding were given rank 0's parameters again."""
    up_by_exchange: Mapping[str, Count] = field(default_factory=dict)
    """`up` by the names of a round's exchanges (positions, values)."""
    down_by_exchange: Mapping[str, Count] = field(default_factory=dict)
    """`down` by the names of a round's exchanges."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """Packets that were lost, late, duplicated or corrupted, and rounds that workers missed (crashed), if any."""
    staleness: Mapping[int, int] = field(default_factory=dict)
    """Asynchronous methods: the number of applied gradients by their staleness."""
    updates: Mapping[str, int] = field(default_factory=dict)
    """Asynchronous methods: gradients dropped (too old), held (until older ones came) and aborted (inf or NaN)."""

    @classmethod
    def of(
        cls,
        meter: Meter,
        rounds: int,
        aborted_rounds: int,
        seconds: dict[str, float],
        control_bytes: int = 0,
        faults: Mapping[str, int] | None = None,
    ) -> "Traffic":
        """Make a snapshot of a meter and the other counters."""
        return cls(
            up=meter.counts["up"], down=meter.counts["down"], setup=meter.counts["setup"],
            rounds=rounds, aborted_rounds=aborted_rounds, seconds=seconds, control_bytes=control_bytes,
            up_by_exchange=dict(meter.by_exchange["up"]), down_by_exchange=dict(meter.by_exchange["down"]),
            faults=dict(sorted((faults or {}).items())),
        )  # fmt: skip

    def __add__(self, other: "Traffic") -> "Traffic":
        """Add two workers of one job: counts add up, rounds are common to both, times are the longer ones."""
        return Traffic(
            up=self.up + other.up,
            down=self.down + other.down,
            setup=self.setup + other.setup,
            rounds=max(self.rounds, other.rounds),
            aborted_rounds=max(self.aborted_rounds, other.aborted_rounds),
            control_bytes=self.control_bytes + other.control_bytes,
            replica_syncs=max(self.replica_syncs, other.replica_syncs),
            seconds={name: max(value, other.seconds[name]) for name, value in self.seconds.items()},
            up_by_exchange=_added(self.up_by_exchange, other.up_by_exchange),
            down_by_exchange=_added(self.down_by_exchange, other.down_by_exchange),
            faults=_numbers_added(self.faults, other.faults),
            staleness=_numbers_added(self.staleness, other.staleness),
            updates=_numbers_added(self.updates, other.updates),
        )

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "Traffic":
        """The inverse of `as_data`."""
        counts = {name: Count(**data[name]) for name in ("up", "down", "setup")}
        by_exchange = {
            name: {exchange: Count(**count) for exchange, count in data[name].items()}
            for name in ("up_by_exchange", "down_by_exchange")
        }
        staleness = {int(age): n for age, n in data.get("staleness", {}).items()}  # JSON's keys are strings
        return cls(**(data | counts | by_exchange | {"staleness": staleness}))

    def as_data(self) -> dict[str, Any]:
        """Return dictionaries and numbers that JSON can hold."""
        return asdict(self)


def _numbers_added(one: Mapping[Key, int], other: Mapping[Key, int]) -> dict[Key, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in dict.fromkeys([*one, *other])}


def _added(one: Mapping[str, Count], other: Mapping[str, Count]) -> dict[str, Count]:
    names = dict.fromkeys([*one, *other])
    return {name: one.get(name, Count()) + other.get(name, Count()) for name in names}
