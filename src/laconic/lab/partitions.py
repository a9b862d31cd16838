"""The partition of the training examples: the batches of every worker in every round.

Shapes: n examples, w workers, r rounds in an epoch, b examples in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from laconic.errors import Named, OptionError
from laconic.lab.defaults import SEED_BOUND
from laconic.random_keys import make_key

Mode = Literal["resample", "fixed"]


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The batches of all workers. They depend on the fields alone, not on the order of the calls.

    Within an epoch no example is in two batches. Examples that do not fill a batch are left out; these differ from
    epoch to epoch.
    - resample: Each epoch divides all examples anew, so all workers sample from one distribution.
    - fixed: Each worker has one random shard for the full run and reshuffles it in each epoch.

    Raises:
        ValueError: A number is out of range, the mode is unknown, or one round needs more examples than there are.
    """

    n_examples: int
    n_workers: int
    batch_size: int
    """Examples per worker and round."""
    seed: int
    """0 to 2**63 - 1."""
    mode: Mode = "resample"
    # Epoch -> its batches. Only one epoch is cached, since rounds are requested in order.
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
            raise OptionError(
                Named("batch_size", self.batch_size), f" is too large: {self.n_workers} workers share "
                f"{self.n_examples} examples, and each needs a full batch; {remedy}",
            )  # fmt: skip

    @property
    def rounds_per_epoch(self) -> int:
        """The number of full rounds in one pass over the examples, at least 1."""
        return self.n_examples // (self.n_workers * self.batch_size)

    def batch(self, rank: int, round_number: int) -> Tensor:
        """Return the examples of one worker in one round.

        Args:
            rank: The worker, 0 to n_workers - 1.
            round_number: The round, counted from 0 over all epochs.

        Returns:
            (batch_size,) int64 indices into the train examples, without repeats. The tensor is a copy.

        Raises:
            ValueError: `rank` or `round_number` is out of range.
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
        """Return one epoch's batches, (w, r, b) int64, from a permutation of all examples."""
        shape = (self.n_workers, self.rounds_per_epoch, self.batch_size)
        order = self._permutation(self.n_examples, 0, epoch, "order")
        return order[: self.n_workers * self.rounds_per_epoch * self.batch_size].view(shape)

    def _reshuffled(self, epoch: int) -> Tensor:
        """Return one epoch's batches, (w, r, b) int64, each worker's from its own shard."""
        n_used = self.rounds_per_epoch * self.batch_size
        # tensor_split, so that no example is left out in all epochs: shard sizes differ by at most one.
        shards = torch.tensor_split(self._permutation(self.n_examples, 0, 0, "shards"), self.n_workers)
        orders = [self._permutation(len(shard), rank, epoch, "order") for rank, shard in enumerate(shards)]
        picked = [shard[order[:n_used]] for shard, order in zip(shards, orders, strict=True)]
        return torch.stack(picked).view(self.n_workers, self.rounds_per_epoch, self.batch_size)

    def _permutation(self, n: int, rank: int, epoch: int, stream: str) -> Tensor:
        generator = torch.Generator().manual_seed(make_key(self.seed, "data", rank, epoch, stream))
        return torch.randperm(n, generator=generator)
