"""What `opt.traffic` returns: a snapshot of the counters, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from laconic.telemetry.meter import Count, Meter

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """One worker's totals since the start, or several workers' added up.

    up: from the worker to the server; down: to the worker; setup: the first parameters. up_by_exchange,
    down_by_exchange: the same by the names of a round's exchanges (positions, values). rounds: rounds tried;
    aborted_rounds: those that all ranks skipped because one met inf or NaN; seconds: compute, encode, wait, decode;
    control_bytes: what agreements took (settings, hash checks, these totals themselves), in none of the counts.
    faults: how many packets a fault plan lost, delayed (late), duplicated and corrupted, and how many rounds workers
    missed (crashed); what never happened is not listed. Where the server waits for nobody, staleness says how many
    gradients were applied at each staleness, and updates how many were dropped (too old), held (until older ones had
    come) and void (inf or NaN); aborted_rounds are then single gradients. Over processes the server counts these.
    """

    up: Count
    down: Count
    setup: Count
    rounds: int
    aborted_rounds: int
    seconds: dict[str, float]
    control_bytes: int = 0
    up_by_exchange: Mapping[str, Count] = field(default_factory=dict)
    down_by_exchange: Mapping[str, Count] = field(default_factory=dict)
    faults: Mapping[str, int] = field(default_factory=dict)
    staleness: Mapping[int, int] = field(default_factory=dict)
    updates: Mapping[str, int] = field(default_factory=dict)

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
        """A snapshot."""
        return cls(
            up=meter.counts["up"], down=meter.counts["down"], setup=meter.counts["setup"],
            rounds=rounds, aborted_rounds=aborted_rounds, seconds=seconds, control_bytes=control_bytes,
            up_by_exchange=dict(meter.by_exchange["up"]), down_by_exchange=dict(meter.by_exchange["down"]),
            faults=dict(sorted((faults or {}).items())),
        )  # fmt: skip

    def __add__(self, other: "Traffic") -> "Traffic":
        """Two workers of one job: counts add up, rounds are the same rounds, times are the longer ones."""
        return Traffic(
            up=self.up + other.up,
            down=self.down + other.down,
            setup=self.setup + other.setup,
            rounds=max(self.rounds, other.rounds),
            aborted_rounds=max(self.aborted_rounds, other.aborted_rounds),
            control_bytes=self.control_bytes + other.control_bytes,
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
        staleness = {int(age): n for age, n in data.get("staleness", {}).items()}  # JSON's keys are texts
        return cls(**(data | counts | by_exchange | {"staleness": staleness}))

    def as_data(self) -> dict[str, Any]:
        """Plain dictionaries and numbers, for JSON."""
        return asdict(self)


def _numbers_added(one: Mapping[Key, int], other: Mapping[Key, int]) -> dict[Key, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in dict.fromkeys([*one, *other])}


def _added(one: Mapping[str, Count], other: Mapping[str, Count]) -> dict[str, Count]:
    names = dict.fromkeys([*one, *other])
    return {name: one.get(name, Count()) + other.get(name, Count()) for name in names}
