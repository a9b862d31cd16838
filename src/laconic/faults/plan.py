"""The faults of a simulated run, as data: the same plan and seed give the same faults.

Uploaded packets are lost, late, duplicated or corrupted; workers crash and return; computation and links are slow;
links tamper with packets. The tampering is that of Phong and Phuong, IEEE Access 2020: a message is multiplied by a
positive factor, and the signs on f links, sampled anew each round, are inverted.
A plan never affects the server's answers or ABORT control frames: these are assumed to be resent until they arrive. So
replicas stay equal, and a round happens on all workers that are up or on none.
Nothing depends on the layout: the packet that rank 0 sends to its own server has the same faults as one that crosses a
link, and the crash of a worker never stops a server.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from laconic.contract import Algorithm, ModelSpec
from laconic.faults.events import KINDS, Event, PlanError, factor_of, integer_of
from laconic.faults.plan_file import plan_text, read_plan
from laconic.hyperparameters import line_of, make_plain
from laconic.protocol.layout import Layout
from laconic.random_keys import make_key, uniform

Fate = Literal["delivered", "lost", "late", "corrupted", "duplicated"]
PACKET_FAULTS: tuple[Fate, ...] = ("lost", "late", "corrupted", "duplicated")
ABSENCES = ("lost", "late", "corrupted", "crashed")  # faults by which a gradient is not delivered
_SHORT = 32  # rounds of a crash up to which each round is drawn
_BLOCK = 1 << 14  # rounds for which longer crashes are drawn together


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
            object.__setattr__(self, name, integer_of(name, getattr(self, name), minimum))
        object.__setattr__(self, "straggle_factor", factor_of("straggle_factor", self.straggle_factor))
        for name in ("stragglers", "slow_links"):
            by_worker = getattr(self, name)
            if not isinstance(by_worker, Mapping):
                raise TypeError(f"faults: {name}={by_worker!r:.80} must be factors by worker, such as {{2: 4.0}}")
            plain = {
                integer_of(f"{name}: worker", worker, 0): factor_of(f"{name}: the factor of worker {worker}", factor)
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
        low, high = factor_of("rescale: the lowest factor", pair[0]), factor_of("rescale: the highest factor", pair[1])
        if low > high:
            raise ValueError(f"faults: rescale={[low, high]} must be the lowest factor and then the highest")
        object.__setattr__(self, "rescale", (low, high))

    def __repr__(self) -> str:
        return line_of(self)

    def check(
        self, algorithm: Algorithm, layout: Layout, n_workers: int, spec: ModelSpec, rounds: int | None = None
    ) -> None:
        """Raise PlanError if this method, layout or number of workers does not admit the plan, or a fault never comes.

        Args:
            algorithm: the method.
            layout: who serves.
            n_workers: the number of workers.
            spec: the model, on whose parameters the exchanges of a round depend.
            rounds: how many the job has, if that is known.
        """
        if algorithm.is_decentralized or algorithm.is_asynchronous:
            raise PlanError(
                f"faults: {algorithm.name} has mode={algorithm.mode!r}, and faults are simulated only where "
                "rounds have a server; take a method with mode='rounds'"
            )
        if not layout.has_server:
            raise PlanError(
                f"faults: layout={layout.name!r} has no server that packets could fail to reach; use rank0, dedicated"
                + (" or sharded" if algorithm.separable else "")
            )
        self._check_workers(n_workers)
        self._check_absences(algorithm)
        self._check_events(algorithm, spec, n_workers, rounds)

    def _check_workers(self, n_workers: int) -> None:
        named: list[tuple[str, int, tuple[str | int, ...]]] = []
        for table in ("stragglers", "slow_links"):
            named += [(table, worker, (table, str(worker))) for worker in getattr(self, table)]
        for number, event in enumerate(self.events):
            named.append((f"event of round {event.round}", event.worker, ("event", number, "worker")))
        for where, worker, at in named:
            if worker >= n_workers:
                raise PlanError(
                    f"faults: {where}: worker {worker} must be in 0 .. {n_workers - 1}, since there are {n_workers} "
                    "workers; mend it, or take more workers", *at,
                )  # fmt: skip
        if self.inverted_links > n_workers:
            raise PlanError(
                f"faults: inverted_links={self.inverted_links} must be at most workers={n_workers}", "inverted_links"
            )

    def _check_absences(self, algorithm: Algorithm) -> None:
        """Refuse faults by which something would be lost for good."""
        kind = next((kind for kind in ABSENCES if kind in self._possible), None)
        if kind is None:
            return
        at = self._at(kind)
        if not algorithm.tolerates_absence:
            raise PlanError(
                f"faults: {algorithm.name} does not tolerate {kind} packets: what is not delivered would be lost for "
                "good; remove that fault, or use a method that keeps it as residual (see `laconic show`), such as "
                "ec-sgd", *at,
            )  # fmt: skip
        if algorithm.dense_in(0):
            raise PlanError(
                f"faults: the dense warm-up rounds of {algorithm.name} keep no residual, so {kind} packets would be "
                "lost for good; leave the dense rounds out", *at,
            )  # fmt: skip
        if "crashed" in self._possible and not algorithm.replicas_equal:
            raise PlanError(
                f"faults: {algorithm.name} lets models differ, so no other worker has the parameters that a crashed "
                "one returns to; remove crashes", *self._at("crashed"),
            )  # fmt: skip

    def _at(self, kind: str) -> tuple[str | int, ...]:
        """Return where the plan has faults of this kind."""
        if getattr(self, kind):
            return (kind,)
        return "event", next(number for number, event in enumerate(self.events) if event.kind == kind), "kind"

    def _check_events(self, algorithm: Algorithm, spec: ModelSpec, n_workers: int, rounds: int | None) -> None:
        """Refuse events that never come in this job."""
        for number, event in enumerate(self.events):
            if rounds is not None and event.round >= rounds:
                raise PlanError(
                    f"faults: event of round {event.round}: round must be in 0 .. {rounds - 1}, since the run has "
                    f"{rounds} rounds (a round is one exchange of all workers); mend it, or run longer",
                    "event", number, "round",
                )  # fmt: skip
            exchanges = len(algorithm.exchanges_in(event.round, spec, n_workers))
            if event.exchange is not None and event.exchange >= exchanges:
                bound = "must be 0" if exchanges == 1 else f"must be in 0 .. {exchanges - 1}"
                raise PlanError(
                    f"faults: event of round {event.round}: exchange {event.exchange} {bound}, since a round of "
                    f"{algorithm.name} has {exchanges} exchange{'s' if exchanges > 1 else ''}; mend it, or leave it "
                    "out for all of them", "event", number, "exchange",
                )  # fmt: skip

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
    def may_crash(self) -> bool:
        """Whether a worker may miss a round."""
        return "crashed" in self._possible

    @property
    def flips_bits(self) -> bool:
        """Whether a bit of a frame may be flipped, so that frames must be encoded."""
        return "corrupted" in self._possible

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
            PlanError: a ValueError that names the line, for text that is not TOML, unknown keys (with near misses),
                wrong values, events that are there twice or exclude each other, and settings without effect.
            TypeError: It is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"faults: text={type(text).__name__} must be TOML as a text, such as 'lost = 0.01'")
        return read_plan(cls, text)

    def to_toml(self) -> str:
        """Return the plan as TOML, without fields that have their default values."""
        return plan_text(self)
