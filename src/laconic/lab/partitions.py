"""Who trains on which examples: the batches of every worker in every round.

Shapes: n examples, w workers, r rounds in an epoch, b examples in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from laconic.random_keys import make_key

Mode = Literal["resample", "fixed"]
SEED_BOUND = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Partition:
    """Divides the train examples over the workers, the same way whoever asks and in whichever order.

    Within an epoch no example is in two batches, and what fills no whole batch is left out, other
    examples in each epoch.
    - resample: each epoch deals all examples anew, so all workers draw from one distribution.
    - fixed: each worker keeps one random shard for the whole run and reshuffles it in each epoch.

    Raises:
        ValueError: a number outside its range, an unknown mode, or fewer examples than one round takes.
    """

    n_examples: int
    n_workers: int
    batch_size: int  # examples per worker and round
    seed: int  # 0 to 2**63 - 1
    mode: Mode = "resample"
    # Epoch -> its batches. One epoch at most is kept, since rounds are asked for in order.
    _dealt: dict[int, Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("n_examples", "n_workers", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Partition: {name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.seed < SEED_BOUND:
            raise ValueError(f"Partition: seed={self.seed} must be 0 to 2**63 - 1")
        if self.mode not in get_args(Mode):
            raise ValueError(f"Partition: mode={self.mode!r} must be one of {', '.join(get_args(Mode))}")
        if self.rounds_per_epoch < 1:
            largest = self.n_examples // self.n_workers
            remedy = f"the largest that works is {largest}" if largest else "take fewer workers"
            raise ValueError(
                f"Partition: batch_size={self.batch_size} must let n_workers={self.n_workers} fill one round "
                f"from n_examples={self.n_examples}; {remedy}"
            )

    @property
    def rounds_per_epoch(self) -> int:
        """Whole rounds in one pass over the examples, at least 1."""
        return self.n_examples // (self.n_workers * self.batch_size)

    def batch(self, rank: int, round_number: int) -> Tensor:
        """The examples of one worker in one round.

        Args:
            rank: the worker, 0 to n_workers - 1.
            round_number: the round, counted from 0 over all epochs.

        Returns:
            (batch_size,) int64 indices into the train examples, without repeats; the caller's own copy.

        Raises:
            ValueError: rank or round_number outside its range.
        """
        if not 0 <= rank < self.n_workers:
            raise ValueError(f"Partition: rank={rank} must be 0 to n_workers - 1 = {self.n_workers - 1}")
        if round_number < 0:
            raise ValueError(f"Partition: round_number={round_number} must be at least 0")
        epoch, place = divmod(round_number, self.rounds_per_epoch)
        batches = self._dealt.get(epoch)
        if batches is None:
            batches = self._resampled(epoch) if self.mode == "resample" else self._reshuffled(epoch)
            self._dealt.clear()
            self._dealt[epoch] = batches
        return batches[rank, place].clone()

    def _resampled(self, epoch: int) -> Tensor:
        """One epoch's batches, (w, r, b) int64, dealt from a permutation of all examples."""
        shape = (self.n_workers, self.rounds_per_epoch, self.batch_size)
        order = self._permutation(self.n_examples, 0, epoch, "order")
        return order[: self.n_workers * self.rounds_per_epoch * self.batch_size].view(shape)

    def _reshuffled(self, epoch: int) -> Tensor:
        """One epoch's batches, (w, r, b) int64, worker by worker from its own shard."""
        n_used = self.rounds_per_epoch * self.batch_size
        # tensor_split, so that no example is left out for the whole run: shards differ by one at most.
        shards = torch.tensor_split(self._permutation(self.n_examples, 0, 0, "shards"), self.n_workers)
        orders = [self._permutation(len(shard), rank, epoch, "order") for rank, shard in enumerate(shards)]
        picked = [shard[order[:n_used]] for shard, order in zip(shards, orders, strict=True)]
        return torch.stack(picked).view(self.n_workers, self.rounds_per_epoch, self.batch_size)

    def _permutation(self, n: int, rank: int, epoch: int, stream: str) -> Tensor:
        generator = torch.Generator().manual_seed(make_key(self.seed, "data", rank, epoch, stream))
        return torch.randperm(n, generator=generator)
