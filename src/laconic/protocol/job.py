"""The description of one training job that all sessions and drivers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from laconic.contract import DENSE, Accept, Accepted, AcceptedBy, Algorithm, Exchange, ModelSpec, Slot, Slots
from laconic.protocol.expectation import Expectation
from laconic.protocol.layout import Layout, Shard, choose_layout
from laconic.protocol.legs import Answering, Pattern, pattern_in
from laconic.wire import LONG_BYTES, Dense

_MAX_ROUNDS = 64  # asynchronous workers are in different rounds
_VALUE_BYTES, _MAX_VALUE_BYTES = 4, 8
_MAX_PHASES = 2  # warm-up and after; or the last rounds of a method whose exchanges depend on the round

MAX_RANKS = 1 << 16
"""How many ranks a frame's header can number."""
MAX_EXCHANGES = 1 << 16
"""How many exchanges of a round a frame's header can number."""


@dataclass(frozen=True, kw_only=True)
class PlannedExchange:
    """One exchange of a round, and how its frames travel in this job."""

    exchange: Exchange
    algorithm: Algorithm
    """The method with the hyper-parameters of this round; see `Algorithm.in_round`."""
    is_full: bool
    """Whether its packets are about all parameters of the job, and not about fewer coordinates."""
    shards: tuple[Shard, ...]
    """The slices of its vector, each with the node that serves it; a single one without servers."""
    pattern: Pattern
    expectations: dict[tuple[str, bool], Expectation] = field(default_factory=dict, repr=False, compare=False)
    """What is expected of a role, whatever the sender's rank, and whether its frames carry slices."""

    @cached_property
    def sum_is_checked(self) -> bool:
        """Whether inf and NaN show in the engine's sum, which all ranks check."""
        return self.pattern.answering is Answering.ENGINE

    @cached_property
    def shows_magnitudes(self) -> bool:
        """Whether a worker's packet bounds the vector that it is made of; see `Packet.shows_magnitudes`."""
        accepted = self.exchange.up
        kinds = accepted if isinstance(accepted, tuple) else () if callable(accepted) else (accepted,)
        return all(each is None or each.kind.shows_magnitudes for each in kinds)

    def bounds_of_values(self, rank: int) -> tuple[int, ...]:
        """Return the offsets at which slices of its vector begin that worker `rank` may send as they are, and the end.

        There are none where its packet has other values, or is short.
        """
        if not self.is_full or self.exchange.count * _VALUE_BYTES < LONG_BYTES * len(self.shards):
            return ()
        accepted = self.exchange.up
        if callable(accepted):
            accepted = accepted(rank)
            if isinstance(accepted, Accept) and accepted.coordinates is not None:
                return tuple(sorted({*self.bounds, *accepted.coordinates})) if accepted.kind is Dense else ()
        kinds = accepted if isinstance(accepted, tuple) else (accepted,)
        return self.bounds if {None if each is None else each.kind for each in kinds} - {None} == {Dense} else ()

    @cached_property
    def is_long(self) -> bool:
        """Whether dense values of its vector may be long."""
        return self.exchange.count * _MAX_VALUE_BYTES >= LONG_BYTES

    @cached_property
    def is_split(self) -> bool:
        """Whether its frames carry slices of several servers."""
        return len(self.shards) > 1

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """The offsets at which the slices begin, and the end of the last."""
        return (self.shards[0].offset, *(shard.stop for shard in self.shards))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training job."""

    algorithm: Algorithm
    seed: int
    spec: ModelSpec
    dtype: torch.dtype
    layout: Layout
    device: torch.device = torch.device("cpu")
    """Device of the workers' vectors; servers compute on the CPU."""
    _planned: dict[int, tuple[PlannedExchange, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _phases: dict[object, tuple[PlannedExchange, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    expectations: dict[tuple[int, bool], Expectation] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By the id of what is accepted, which the expectation holds, and whether frames carry slices."""
    _by_rank: dict[tuple[int, int], tuple[Accepted, object]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """By the id of a function of the sender's rank, and that: what it returned."""

    def __post_init__(self) -> None:
        """Refuse what no driver can run, before anything is sent."""
        name, n_workers = self.algorithm.name, self.layout.n_workers
        if n_workers > MAX_RANKS:
            raise ValueError(f"workers={n_workers:,} must be at most {MAX_RANKS:,}, which frames can number")
        n_exchanges = len(self.algorithm.exchanges_in(0, self.spec, n_workers))
        if self.algorithm.delay:
            raise ValueError(f"{name}: delay={self.algorithm.delay} must be 0; results are applied in their own round")
        if n_exchanges > MAX_EXCHANGES:
            raise ValueError(
                f"{name} with {n_workers} workers has {n_exchanges:,} exchanges in a round, and frames can "
                f"number {MAX_EXCHANGES:,}; take fewer workers"
            )

    @cached_property
    def d(self) -> int:
        """Number of parameters."""
        return self.spec.d

    @cached_property
    def answers_values(self) -> bool:
        """Whether several servers answer with the values of what a worker's optimizer steps along."""
        steps_along = (self.algorithm.consumes, self.algorithm.returns) == ("gradient", "direction")
        return steps_along and any(each.exchange.down == DENSE and each.is_split for each in self.exchanges_in(0))

    @cached_property
    def worker_slots(self) -> Slots:
        """The memories of a worker."""
        return self._slots("worker_slots", self.algorithm.worker_slots, self.spec.offset, self.d)

    def server_slots(self, shard: Shard) -> Slots:
        """Return the memories of the server of this slice."""
        return self._slots("server_slots", self.algorithm.server_slots, shard.offset, shard.count)

    def _slots(self, owner: str, table: Mapping[str, Slot], offset: int, count: int) -> Slots:
        return Slots(
            table=table, owner=f"{type(self.algorithm).__name__}.{owner}", spec=self.spec, dtype=self.dtype,
            n_workers=self.layout.n_workers, offset=offset, count=count,
        )  # fmt: skip

    def sliced(self, bounds: Sequence[int]) -> tuple["Job", ...]:
        """Return one job for each slice of the vector. Their rounds are independent, with own frames and memories.

        Args:
            bounds: where the slices begin, and the end of the last: they ascend from 0 to d.

        Raises:
            ValueError: for bounds that do not cover the vector, and a method that does not work over slices, or not
                over slices as small as these.
        """
        bounds = tuple(bounds)
        if (bounds[:1], bounds[-1:]) != ((0,), (self.d,)) or any(start >= stop for start, stop in pairwise(bounds)):
            raise ValueError(f"bounds={bounds} must ascend from 0 to {self.d}, the number of parameters")
        algorithm, layout = self.algorithm, self.layout
        if len(bounds) > 2 and algorithm.over_slices == "refused":
            raise ValueError(f"{algorithm.name} looks at the full vector, so it does not work over slices; take one")
        parts = [self.spec.part(start, stop - start) for start, stop in pairwise(bounds)]
        for part in parts:
            algorithm.check_size(part, layout.n_workers)
        return tuple(
            replace(self, spec=part, layout=choose_layout(layout.name, algorithm, part, layout.n_nodes, is_part=True))
            for part in parts
        )

    def zeros(self, count: int) -> Tensor:
        """Return a new zero vector (count,) on the workers' device."""
        return torch.zeros(count, dtype=self.dtype, device=self.device)

    def exchanges_in(self, round_: int) -> tuple[PlannedExchange, ...]:
        """Return the exchanges of this round."""
        planned = self._always or self._planned.get(round_)
        return self._plan(round_) if planned is None else planned

    @cached_property
    def _always(self) -> tuple[PlannedExchange, ...] | None:
        """The exchanges of every round, if no round differs from another."""
        kind = type(self.algorithm)
        may_differ = (
            self.layout.has_graph
            or kind.dense_in is not Algorithm.dense_in
            or kind.in_round is not Algorithm.in_round
            or kind.exchanges_in is not Algorithm.exchanges_in
        )
        return None if may_differ else self._plan(0)

    def _plan(self, round_: int) -> tuple[PlannedExchange, ...]:
        """Plan a round. The exchanges are the same objects in all rounds that are alike."""
        algorithm = self.algorithm
        depends_on_round = type(algorithm).exchanges_in is not Algorithm.exchanges_in
        now = algorithm.in_round(round_)
        phase = round_ if depends_on_round else (algorithm.dense_in(round_), None if now is algorithm else now)
        planned = self._phases.get(phase)
        if planned is None:
            if len(self._phases) == _MAX_PHASES:
                self._phases.clear()
                self._planned.clear()
                self.expectations.clear()
                self._by_rank.clear()
            exchanges = algorithm.exchanges_in(round_, self.spec, self.layout.n_workers)
            planned = self._phases[phase] = tuple(self._one(round_, *each) for each in enumerate(exchanges))
        elif self.layout.has_graph:  # it may change from round to round
            planned = tuple(self._one(round_, number, each.exchange) for number, each in enumerate(planned))
        if len(self._planned) == _MAX_ROUNDS:
            self._planned.clear()
        self._planned[round_] = planned
        return planned

    def _one(self, round_: int, number: int, exchange: Exchange) -> PlannedExchange:
        stop = exchange.offset + exchange.count
        is_full = (exchange.offset, exchange.count) == (self.spec.offset, self.d)
        shards = self.layout.shards
        if not shards:
            shards = (Shard(0, exchange.offset, stop),)
        elif not is_full:
            (only,) = shards
            shards = (Shard(only.node, exchange.offset, stop),)
        pattern = pattern_in(self.layout, self.algorithm, exchange, round_, number, seed=self.seed)
        return PlannedExchange(
            exchange=exchange, algorithm=self.algorithm.in_round(round_), is_full=is_full, shards=shards,
            pattern=pattern,
        )  # fmt: skip

    def expect(self, accepted: AcceptedBy, rank: int, *, is_split: bool) -> Expectation:
        """Return what is expected of a sender, and keep it in `expectations`.

        Args:
            accepted: what an exchange accepts in one direction.
            rank: number of the worker or server that sends.
            is_split: whether the packet is the slice of one of several servers.
        """
        if callable(accepted):
            by_rank = self._by_rank.get((id(accepted), rank))
            if by_rank is None:
                by_rank = self._by_rank[id(accepted), rank] = (accepted(rank), accepted)  # which keeps its id its own
            of_sender = by_rank[0]
        else:
            of_sender = accepted
        key = (id(of_sender), is_split)
        if key not in self.expectations:
            self.expectations[key] = Expectation(of_sender, self.dtype, is_split=is_split, offset=self.spec.offset)
        return self.expectations[key]
