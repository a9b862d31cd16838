"""The faults of a simulated run, as data: the same plan and seed give the same faults.

Uploaded packets are lost, late, duplicated or corrupted; workers crash and return; computation and links are slow;
links tamper with packets. The tampering is that of Phong and Phuong, IEEE Access 2020: a message is multiplied by a
positive factor, and the signs on f links, sampled anew each round, are inverted.
A plan never affects the server's answers or ABORT control frames: these are assumed to be resent until they arrive. So
replicas stay equal, and a round happens on all workers that are up or on none.
Nothing depends on the layout: the packet that rank 0 sends to its own server has the same faults as one that crosses a
link, and the crash of a worker never stops a server.
"""

import dataclasses
import math
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import tomli_w

from laconic.contract import Algorithm
from laconic.hyperparameters import line_of, make_plain, near_misses, plain_number
from laconic.protocol.layout import Layout
from laconic.random_keys import make_key, uniform

Fate = Literal["delivered", "lost", "late", "corrupted", "duplicated"]
PACKET_FAULTS: tuple[Fate, ...] = ("lost", "late", "corrupted", "duplicated")
ABSENCES = ("lost", "late", "corrupted", "crashed")  # faults by which a gradient is not delivered
_SHORT = 32  # rounds of a crash up to which each round is drawn
_BLOCK = 1 << 14  # rounds for which longer crashes are drawn together
KINDS = ("lost", "late", "duplicated", "corrupted", "crashed")  # the kinds of events and counts


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fault of one worker in one round. Raises TypeError or ValueError, naming the field."""

    round: int
    worker: int
    kind: str
    """One of KINDS."""
    exchange: int | None = None
    """Number of the exchange in the round; None for all of them."""

    def __post_init__(self) -> None:
        for name in ("round", "worker", "exchange"):
            value = getattr(self, name)
            if value is not None or name != "exchange":
                object.__setattr__(self, name, _integer(f"event: {name}", value, 0))
        if self.kind not in KINDS:
            raise ValueError(
                f"event: kind={self.kind!r} must be one of {', '.join(KINDS)}{near_misses(str(self.kind), list(KINDS))}"
            )
        if self.kind == "crashed" and self.exchange is not None:
            raise ValueError(
                f"event: exchange={self.exchange} does not go with kind='crashed': a worker that crashes misses "
                "complete rounds; leave exchange out"
            )


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """Which faults happen, and how often. Rounds, workers and exchanges count from 0.

    The faults of one packet are sampled independently; if there are several, the earliest in PACKET_FAULTS applies.
    Raises TypeError or ValueError, naming the field.
    """

    seed: int = 0
    lost: float = 0.0
    """Probability in [0, 1) that an uploaded packet is lost."""
    late: float = 0.0
    """Probability in [0, 1) that an uploaded packet is too late for its round."""
    duplicated: float = 0.0
    """Probability in [0, 1) that an uploaded packet is sent twice."""
    corrupted: float = 0.0
    """Probability in [0, 1) that a bit of an uploaded packet is flipped."""
    crashed: float = 0.0
    """Probability in [0, 1) that a worker crashes before a round; a crash while it is down starts anew."""
    crash_rounds: int = 1
    """Number of rounds that a crashed worker misses."""
    straggle: float = 0.0
    """Probability in [0, 1) that a worker takes `straggle_factor` times as long in a round."""
    straggle_factor: float = 4.0
    inverted_links: int = 0
    """Number of links, sampled anew each round, that invert the signs of packets."""
    rescale: tuple[float, float] | None = None
    """Lowest and highest factor that packets are multiplied by, sampled uniformly on a logarithmic scale."""
    stragglers: Mapping[int, float] = field(default_factory=dict)
    """By worker, how many times as long it computes in every round."""
    slow_links: Mapping[int, float] = field(default_factory=dict)
    """By worker, the factor that its bandwidth is multiplied by."""
    events: tuple[Event, ...] = ()
    """Single faults, in addition to those that are sampled."""

    def __post_init__(self) -> None:
        for name in (*KINDS, "straggle"):
            make_plain(self, [name], "faults")
            chance = getattr(self, name)
            if not 0 <= chance < 1:
                raise ValueError(f"faults: {name}={chance} must be in [0, 1) (one in a hundred is 0.01)")
        for name, minimum in (("seed", 0), ("crash_rounds", 1), ("inverted_links", 0)):
            object.__setattr__(self, name, _integer(name, getattr(self, name), minimum))
        object.__setattr__(self, "straggle_factor", _factor("straggle_factor", self.straggle_factor))
        for name in ("stragglers", "slow_links"):
            by_worker = getattr(self, name)
            if not isinstance(by_worker, Mapping):
                raise TypeError(f"faults: {name}={by_worker!r:.80} must be factors by worker, such as {{2: 4.0}}")
            plain = {
                _integer(f"{name}: worker", worker, 0): _factor(f"{name}: the factor of worker {worker}", factor)
                for worker, factor in by_worker.items()
            }
            object.__setattr__(self, name, plain)
        if self.rescale is not None:
            self._check_rescale()
        if isinstance(self.events, str) or not all(isinstance(event, Event) for event in self.events):
            raise TypeError(f"faults: events={self.events!r:.80} must be objects of laconic.Event")
        object.__setattr__(self, "events", tuple(self.events))

    def _check_rescale(self) -> None:
        pair = self.rescale
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"faults: rescale={pair!r:.80} must be two factors, such as (0.001, 1000.0)")
        low, high = _factor("rescale: the lowest factor", pair[0]), _factor("rescale: the highest factor", pair[1])
        if low > high:
            raise ValueError(f"faults: rescale={[low, high]} must be the lowest factor and then the highest")
        object.__setattr__(self, "rescale", (low, high))

    def __repr__(self) -> str:
        return line_of(self)

    def check(self, algorithm: Algorithm, layout: Layout, n_workers: int) -> None:
        """Raise ValueError if this method, layout or number of workers does not admit the plan."""
        if algorithm.is_decentralized or algorithm.is_asynchronous:
            raise ValueError(
                f"faults: {algorithm.name} has mode={algorithm.mode!r}, and faults are simulated only where "
                "rounds have a server; take a method with mode='rounds'"
            )
        if not layout.has_server:
            raise ValueError(
                f"faults: layout={layout.name!r} has no server that packets could fail to reach; use rank0, dedicated"
                + (" or sharded" if algorithm.separable else "")
            )
        self._check_workers(n_workers)
        absences = [kind for kind in ABSENCES if kind in self._possible]
        if absences and not algorithm.tolerates_absence:
            raise ValueError(
                f"faults: {algorithm.name} does not tolerate {absences[0]} packets: what is not delivered would be "
                "lost for good; remove that fault, or use a method that keeps it as residual (see `laconic show`), "
                "such as ec-sgd"
            )
        if absences and algorithm.dense_in(0):
            raise ValueError(
                f"faults: the dense warm-up rounds of {algorithm.name} keep no residual, so {absences[0]} packets "
                "would be lost for good; leave the dense rounds out"
            )
        if "crashed" in absences and not algorithm.replicas_equal:
            raise ValueError(
                f"faults: {algorithm.name} lets models differ, so no other worker has the parameters that a crashed "
                "one returns to; remove crashes"
            )

    def _check_workers(self, n_workers: int) -> None:
        named = [("stragglers", worker) for worker in self.stragglers]
        named += [("slow_links", worker) for worker in self.slow_links]
        named += [(f"event of round {event.round}", event.worker) for event in self.events]
        for where, worker in named:
            if worker >= n_workers:
                raise ValueError(f"faults: {where}: worker {worker} must be in 0 .. {n_workers - 1}")
        if self.inverted_links > n_workers:
            raise ValueError(f"faults: inverted_links={self.inverted_links} must be at most workers={n_workers}")

    @cached_property
    def _possible(self) -> frozenset[str]:
        """The kinds of faults that may happen."""
        return frozenset(kind for kind in KINDS if getattr(self, kind)) | {event.kind for event in self.events}

    @cached_property
    def _events_at(self) -> dict[tuple[str, int, int], set[int | None]]:
        """The exchanges of events, by kind, worker and round."""
        exchanges: dict[tuple[str, int, int], set[int | None]] = {}
        for event in self.events:
            exchanges.setdefault((event.kind, event.worker, event.round), set()).add(event.exchange)
        return exchanges

    def _draw(self, worker: int, round_: int, purpose: str) -> float:
        return uniform(make_key(self.seed, "link", worker, round_, f"fault {purpose}"))

    def fate(self, worker: int, round_: int, exchange: int) -> Fate:
        """Return what happens to this worker's packet, or to its SKIP control frame."""
        for kind in PACKET_FAULTS:
            if kind not in self._possible:
                continue
            named = self._events_at.get((kind, worker, round_), set())
            if None in named or exchange in named:
                return kind
            if self._draw(worker, round_, f"{kind} {exchange}") < getattr(self, kind):
                return kind
        return "delivered"

    def is_down(self, worker: int, round_: int) -> bool:
        """Return whether the worker misses this round."""
        if "crashed" not in self._possible:
            return False
        earliest = max(0, round_ - self.crash_rounds + 1)
        named = self._crashes_by_events.get(worker, [])
        if (place := bisect_right(named, round_)) and named[place - 1] >= earliest:
            return True
        if not self.crashed:
            return False
        if self.crash_rounds <= _SHORT:
            rounds = range(earliest, round_ + 1)
            return any(self._draw(worker, start, "crashed") < self.crashed for start in rounds)
        for block in range(round_ // _BLOCK, earliest // _BLOCK - 1, -1):
            crashes = self._crashes_in(worker, block)
            if place := bisect_right(crashes, round_):
                return crashes[place - 1] >= earliest
        return False

    @cached_property
    def _crashes_by_events(self) -> dict[int, list[int]]:
        """The rounds of crashes that are events, ascending, by worker."""
        rounds: dict[int, list[int]] = {}
        for event in self.events:
            if event.kind == "crashed":
                rounds.setdefault(event.worker, []).append(event.round)
        return {worker: sorted(of_worker) for worker, of_worker in rounds.items()}

    @cached_property
    def _blocks(self) -> dict[tuple[int, int], list[int]]:
        return {}

    def _crashes_in(self, worker: int, block: int) -> list[int]:
        """Return the rounds of a block in which this worker crashes by chance, ascending.

        The gaps between them are drawn, so that long crashes do not ask for a draw for each of their rounds.
        """
        crashes = self._blocks.get((worker, block))
        if crashes is None:
            crashes = self._blocks[worker, block] = []
            round_, end = block * _BLOCK - 1, (block + 1) * _BLOCK
            while True:
                chance = self._draw(worker, block, f"crash {len(crashes)}")
                gap = math.log(1.0 - chance) / math.log1p(-self.crashed)  # inf where a crash is that improbable
                if gap >= end - round_ - 1:
                    break
                round_ += 1 + int(gap)
                crashes.append(round_)
        return crashes

    def damaged_bit(self, worker: int, round_: int, exchange: int, n_bits: int) -> int:
        """Return which bit of a corrupted frame of `n_bits` bits is flipped."""
        return make_key(self.seed, "link", worker, round_, f"fault bit {exchange}") % n_bits

    def compute_factor(self, worker: int, round_: int) -> float:
        """Return how many times as long as usual this worker computes in this round."""
        factor = self.stragglers.get(worker, 1.0)
        if self.straggle and self._draw(worker, round_, "straggle") < self.straggle:
            factor *= self.straggle_factor
        return factor

    @property
    def is_damaging(self) -> bool:
        """Whether a packet may be changed or not arrive, or arrive twice: not only late workers and slow links."""
        return bool(self._possible) or self.rescale is not None or self.inverted_links > 0

    @property
    def is_slowing(self) -> bool:
        """Whether some worker may compute longer than usual."""
        return bool(self.stragglers) or self.straggle > 0

    def tampering_factor(self, worker: int, n_workers: int, round_: int, exchange: int) -> float:
        """Return the factor that this worker's packet is multiplied by on its link; below 0 if it is inverted."""
        factor = 1.0
        if self.rescale is not None:
            low, high = self.rescale
            factor = low * (high / low) ** self._draw(worker, round_, f"rescale {exchange}")
        return -factor if worker in self.inverted(n_workers, round_) else factor

    def inverted(self, n_workers: int, round_: int) -> frozenset[int]:
        """Return the workers whose packets are inverted in this round."""
        if not self.inverted_links:
            return frozenset()
        order = sorted(range(n_workers), key=lambda worker: self._draw(worker, round_, "invert"))
        return frozenset(order[: self.inverted_links])

    @classmethod
    def from_toml(cls, text: str) -> "FaultPlan":
        """Read what `to_toml` writes: the fields by name, `[[event]]` tables, workers as keys of the two tables.

        Raises:
            ValueError: for text that is not TOML, unknown keys (with near misses) and wrong values.
        """
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"faults: not TOML: {error}") from None
        known = [item.name for item in dataclasses.fields(cls) if item.name != "events"] + ["event"]
        _check_keys("faults", data, known)
        chosen: dict[str, Any] = {key: value for key, value in data.items() if key != "event"}
        for name in ("stragglers", "slow_links"):
            if name in chosen:
                chosen[name] = _by_worker(name, chosen[name])
        if "rescale" in chosen:
            pair = chosen["rescale"]
            if not isinstance(pair, list) or len(pair) != 2:
                raise ValueError(f"faults: rescale={pair!r} must be two factors, such as [0.001, 1000.0]")
            chosen["rescale"] = tuple(pair)
        try:
            return cls(**chosen, events=_events(data.get("event", [])))
        except TypeError as error:
            raise ValueError(str(error)) from None

    def to_toml(self) -> str:
        """Return the plan as TOML, without fields that have their default values."""
        default = type(self)()
        data: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if value == getattr(default, item.name):
                continue
            if isinstance(value, Mapping):
                data[item.name] = {str(worker): factor for worker, factor in value.items()}
            elif item.name == "events":
                given = [dataclasses.asdict(event) for event in self.events]
                data["event"] = [{k: v for k, v in event.items() if v is not None} for event in given]
            else:
                data[item.name] = list(value) if isinstance(value, tuple) else value
        return tomli_w.dumps(data)


def _factor(name: str, value: object) -> float:
    number: float = plain_number(value, f"faults: {name}")
    if not 0 < number < math.inf:
        raise ValueError(f"faults: {name}={number} must be above 0 and finite")
    return number


def _integer(name: str, value: object, minimum: int) -> int:
    number: int = plain_number(value, f"faults: {name}", int)
    if not minimum <= number < 2**63:
        raise ValueError(f"faults: {name}={number} must be at least {minimum} and below 2**63")
    return number


def _check_keys(where: str, data: Mapping[str, Any], known: list[str]) -> None:
    for key in data:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known: {', '.join(known)}{near_misses(key, known)}")


def _by_worker(name: str, table: Any) -> dict[int, Any]:  # noqa: ANN401
    """Return the table with integer keys; TOML's keys are strings."""
    if not isinstance(table, dict):
        raise ValueError(f"faults: {name}={table!r} must be a table of factors by worker, such as {{ 2 = 4.0 }}")
    for worker in table:
        if not worker.isdecimal():
            raise ValueError(f"faults: {name}: worker {worker!r} must be a whole number of at least 0")
    return {int(worker): factor for worker, factor in table.items()}


def _events(tables: Any) -> tuple[Event, ...]:  # noqa: ANN401
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("faults: events are written as [[event]] tables with round, worker and kind")
    known = [item.name for item in dataclasses.fields(Event)]
    for table in tables:
        _check_keys("faults: event", table, known)
        missing = [name for name in ("round", "worker", "kind") if name not in table]
        if missing:
            raise ValueError(f"faults: an event has no {missing[0]}; it needs round, worker and kind")
    return tuple(Event(**table) for table in tables)
