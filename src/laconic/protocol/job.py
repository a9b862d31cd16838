"""The description of one training job that all sessions and drivers share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from laconic.contract import Algorithm, Exchange, ModelSpec
from laconic.protocol.layout import Layout, Shard


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

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self.spec.d

    def zeros(self, count: int) -> Tensor:
        """Return a new zero vector (count,) on the workers' device."""
        return torch.zeros(count, dtype=self.dtype, device=self.device)

    def exchanges_in(self, round_: int) -> tuple[Exchange, ...]:
        """Return the exchanges of this round."""
        return self.algorithm.exchanges_in(round_, self.spec, self.layout.n_workers)

    def shards(self, exchange: Exchange) -> tuple[Shard, ...]:
        """Return the slices of the exchange's vector, each with the node that serves it."""
        shards = self.layout.shards
        if exchange.count == self.d or not shards:
            return shards
        (only,) = shards
        return (Shard(only.node, 0, exchange.count),)

    def shard_bounds(self, exchange: Exchange) -> Sequence[int]:
        """Return the offsets at which the servers' slices of the exchange's vector begin, and the end of the last."""
        return self._shard_bounds if exchange.count == self.d else (0, exchange.count)

    @cached_property
    def _shard_bounds(self) -> tuple[int, ...]:
        return (0, *(shard.stop for shard in self.layout.shards))
