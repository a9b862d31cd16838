"""The description of one training job that all sessions and drivers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from laconic.contract import Algorithm, Exchange, ModelSpec, Slot, Slots
from laconic.protocol.layout import Layout, Shard, choose_layout
from laconic.protocol.legs import Answering, Pattern, pattern_in

MAX_EXCHANGES = 1 << 16
"""How many exchanges of a round a frame's header can number."""


@dataclass(frozen=True, kw_only=True)
class PlannedExchange:
    """One exchange of a round, and how its frames travel in this job."""

    exchange: Exchange
    is_full: bool
    """Whether its packets are about all parameters of the job, and not about fewer coordinates."""
    shards: tuple[Shard, ...]
    """The slices of its vector, each with the node that serves it; a single one without servers."""
    pattern: Pattern

    @cached_property
    def sum_is_checked(self) -> bool:
        """Whether inf and NaN show in the engine's sum, which all ranks check."""
        return self.pattern.answering is Answering.ENGINE

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

    def __post_init__(self) -> None:
        """Refuse what no driver can run, before anything is sent."""
        name, n_exchanges = self.algorithm.name, len(self.exchanges_in(0))
        if self.algorithm.delay:
            raise ValueError(f"{name}: delay={self.algorithm.delay} must be 0; results are applied in their own round")
        if n_exchanges > MAX_EXCHANGES:
            raise ValueError(
                f"{name} with {self.layout.n_workers} workers has {n_exchanges:,} exchanges in a round, and frames can "
                f"number {MAX_EXCHANGES:,}; take fewer workers"
            )

    @cached_property
    def d(self) -> int:
        """Number of parameters."""
        return self.spec.d

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
            replace(self, spec=part, layout=choose_layout(layout.name, algorithm, part, layout.n_nodes))
            for part in parts
        )

    def zeros(self, count: int) -> Tensor:
        """Return a new zero vector (count,) on the workers' device."""
        return torch.zeros(count, dtype=self.dtype, device=self.device)

    def exchanges_in(self, round_: int) -> tuple[PlannedExchange, ...]:
        """Return the exchanges of this round."""
        latest = self._latest
        if latest.round != round_:
            is_dense = self.algorithm.dense_in(round_)
            if self.layout.has_graph or is_dense != latest.is_dense:  # a graph may change from round to round
                exchanges = self.algorithm.exchanges_in(round_, self.spec, self.layout.n_workers)
                latest.planned = tuple(self._planned(round_, number, each) for number, each in enumerate(exchanges))
            latest.round, latest.is_dense = round_, is_dense
        return latest.planned

    @cached_property
    def _latest(self) -> "_LatestRound":
        return _LatestRound()

    def _planned(self, round_: int, number: int, exchange: Exchange) -> PlannedExchange:
        shards, stop = self.layout.shards, exchange.offset + exchange.count
        is_full = (exchange.offset, exchange.count) == (self.spec.offset, self.d)
        if shards and not is_full:
            (only,) = shards
            shards = (Shard(only.node, exchange.offset, stop),)
        return PlannedExchange(
            exchange=exchange, is_full=is_full, shards=shards or (Shard(0, exchange.offset, stop),),
            pattern=pattern_in(self.layout, self.algorithm, exchange, round_, number),
        )  # fmt: skip


@dataclass(kw_only=True)
class _LatestRound:
    """The exchanges of the round that was asked for last."""

    round: int = -1
    is_dense: bool | None = None
    planned: tuple[PlannedExchange, ...] = ()
