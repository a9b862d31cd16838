"""One training job, as every half of it and every driver knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from laconic.contract import Algorithm, Exchange
from laconic.protocol.layout import Layout, Shard


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every half of one training job shares. `layers` are the parameters' sizes; they add up to d."""

    algorithm: Algorithm
    seed: int
    d: int
    layers: tuple[int, ...]
    dtype: torch.dtype
    layout: Layout
    device: torch.device = torch.device("cpu")  # of the workers' vectors; servers work on the CPU

    def zeros(self, count: int) -> Tensor:
        """A fresh zero vector (count,) where the workers are."""
        return torch.zeros(count, dtype=self.dtype, device=self.device)

    def exchanges_in(self, round_: int) -> tuple[Exchange, ...]:
        """What this round sends."""
        return self.algorithm.exchanges_in(round_, self.d, self.layout.n_workers)

    def shards(self, exchange: Exchange) -> tuple[Shard, ...]:
        """Who serves which of the exchange's coordinates."""
        shards = self.layout.shards
        if exchange.count == self.d or not shards:
            return shards
        (only,) = shards
        return (Shard(only.node, 0, exchange.count),)

    def shard_bounds(self, exchange: Exchange) -> Sequence[int]:
        """Where the servers' slices of the exchange's coordinates begin and end."""
        return self._shard_bounds if exchange.count == self.d else (0, exchange.count)

    @cached_property
    def _shard_bounds(self) -> tuple[int, ...]:
        return (0, *(shard.stop for shard in self.layout.shards))
