"""The snapshot of the traffic counters that `opt.traffic` returns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from laconic.hyperparameters import make_plain
from laconic.telemetry.count_table import NOT_COUNTED, NOTE, VIRTUAL, aligned, count_rows, seconds_line
from laconic.telemetry.html import html_lines, html_table
from laconic.telemetry.meter import Count, Meter
from laconic.telemetry.phases import Seconds
from laconic.units import bytes_text

Key = TypeVar("Key")

_COUNT_SCHEMA = {field.name: int | float for field in fields(Count)}
TRAFFIC_SCHEMA = {
    "up": _COUNT_SCHEMA, "down": _COUNT_SCHEMA, "setup": _COUNT_SCHEMA, "served": _COUNT_SCHEMA,
    "inside": _COUNT_SCHEMA,
    "rounds": int, "aborted_rounds": int,
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
    """From the worker to the server. On a rank that also serves, its own packets cross no link: `local_bytes`."""
    down: Count
    """From the server to the worker, likewise. In a sum over workers, an answer to all counts once for each of them."""
    setup: Count
    """The initial parameters."""
    rounds: int
    """Number of rounds, aborted ones included."""
    aborted_rounds: int
    """Rounds without effect because a rank met inf or NaN; single gradients if the method is asynchronous."""
    seconds: dict[str, float]
    """Time by phase: compute, encode, wait, decode."""
    served: Count = field(default_factory=Count)
    """Frames that cross this rank's link because it serves: from other workers, and answers to them. Messages and wire
    bytes, which those workers count in `up` and `down` as well; so add them to neither."""
    inside: Count = field(default_factory=Count)
    """What this rank sends to ranks of its own node, with `nodes`: messages and wire bytes, in no other count."""
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

    def __post_init__(self) -> None:
        for name in ("up", "down", "setup", "served", "inside"):
            if not isinstance(getattr(self, name), Count):
                raise TypeError(f"Traffic: {name}={getattr(self, name)!r:.80} must be a laconic.Count")
        totals = ("rounds", "aborted_rounds", "control_bytes", "replica_syncs")
        make_plain(self, totals, "Traffic", int)
        for name in totals:
            if getattr(self, name) < 0:
                raise ValueError(f"Traffic: {name}={getattr(self, name)} must be at least 0")
        for name in ("seconds", "up_by_exchange", "down_by_exchange", "faults", "staleness", "updates"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"Traffic: {name}={getattr(self, name)!r:.80} must be a dictionary")

    def __str__(self) -> str:
        """Return a small table: what was sent in each direction and exchange, then rounds and seconds."""
        return "\n".join([*aligned(self._rows()), *self._lines()])

    def _repr_html_(self) -> str:
        """Return the same for a notebook."""
        return html_table(self._rows()) + html_lines(self._lines())

    def _rows(self) -> list[list[str]]:
        counts = {"up": self.up, "down": self.down, "setup": self.setup}
        if len({*self.up_by_exchange, *self.down_by_exchange}) > 1:
            counts |= {f"up, {name}": count for name, count in self.up_by_exchange.items()}
            counts |= {f"down, {name}": count for name, count in self.down_by_exchange.items()}
        return count_rows(counts, {"served": self.served, "inside": self.inside})

    def _lines(self) -> list[str]:
        """Return what is below the table: rounds, bytes that are in no count, seconds, and what else is not 0."""
        simulated = VIRTUAL in self.seconds
        control = NOT_COUNTED if simulated and not self.control_bytes else bytes_text(self.control_bytes)
        rounds = f"{self.rounds:,} round{'s' * (self.rounds != 1)}, {self.aborted_rounds:,} aborted"
        syncs = f"; replica syncs {self.replica_syncs:,}" if self.replica_syncs else ""
        lines = [f"{rounds}; control {control}{syncs}", seconds_line(self.seconds, self.rounds)]
        for name in ("faults", "staleness", "updates"):
            listed = ", ".join(f"{key}: {number:,}" for key, number in getattr(self, name).items())
            lines += [f"{name} {listed}"] if listed else []
        return [line for line in [*lines, NOTE] if line]

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
            served=meter.counts["served"],
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
            served=self.served + other.served,
            inside=self.inside + other.inside,
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
        names = ("up", "down", "setup", "served", "inside")
        counts = {name: Count(**data[name]) for name in names if name in data}
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
