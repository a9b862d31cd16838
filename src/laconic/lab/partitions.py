"""The partition of the training examples: the batches of every worker in every round.

Shapes: n examples, w workers, r rounds in an epoch, b examples in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch
from torch import Tensor

from laconic.errors import Named, OptionError
from laconic.lab.defaults import SEED_BOUND
from laconic.lab.shards import Shards, by_dirichlet, by_labels, of_unequal_sizes
from laconic.random_keys import make_key

Mode = Literal["resample", "fixed"]
BY_LABEL = ("labels", "dirichlet")
"""Partitions that need a class for each example."""


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

    @property
    def shards(self) -> tuple[Tensor, ...]:
        """By worker, the examples that are its own for the full run; empty if all workers share all."""
        if self.mode == "resample":
            return ()
        # tensor_split, so that no example is left out in all epochs: shard sizes differ by at most one.
        return torch.tensor_split(self._permutation(self.n_examples, 0, 0, "shards"), self.n_workers)

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
        shards = self.shards
        orders = [self._permutation(len(shard), rank, epoch, "order") for rank, shard in enumerate(shards)]
        picked = [shard[order[:n_used]] for shard, order in zip(shards, orders, strict=True)]
        return torch.stack(picked).view(self.n_workers, self.rounds_per_epoch, self.batch_size)

    def _permutation(self, n: int, rank: int, epoch: int, stream: str) -> Tensor:
        generator = torch.Generator().manual_seed(make_key(self.seed, "data", rank, epoch, stream))
        return torch.randperm(n, generator=generator)


def partition_of(
    kind: str,
    labels: Tensor,
    *,
    n_workers: int,
    batch_size: int,
    seed: int,
    shards_per_worker: int = 2,
    dirichlet_alpha: float = 0.5,
    size_ratio: float = 4.0,
) -> Partition | Shards:
    """Return the partition of a name.

    Args:
        kind: resample, fixed, labels, dirichlet or unequal.
        labels: (n,) int64 of the train examples, or (n, t) of windows of text.
        n_workers: The number of workers.
        batch_size: Examples per worker and round.
        seed: 0 to 2**63 - 1.
        shards_per_worker: Of `labels`.
        dirichlet_alpha: Of `dirichlet`.
        size_ratio: Of `unequal`: the largest shard over the smallest.

    Raises:
        OptionError: A worker would not have a full batch, the shards are too many, or the examples have no classes.
    """
    if kind in get_args(Mode):
        return Partition(
            n_examples=len(labels), n_workers=n_workers, batch_size=batch_size, seed=seed, mode=cast(Mode, kind)
        )
    if kind in BY_LABEL and labels.dim() > 1:
        raise OptionError(
            Named("partition", kind), " is for examples with one label each; take resample, fixed or unequal"
        )
    if kind == "labels":
        largest = max(2, len(labels) // n_workers)
        if shards_per_worker > largest:
            raise OptionError(
                Named("shards_per_worker", shards_per_worker), f" must be at most {largest:,}: {n_workers:,} workers "
                f"share {len(labels):,} examples",
            )  # fmt: skip
        shards = by_labels(labels, n_workers, seed, per_worker=shards_per_worker)
    elif kind == "dirichlet":
        shards = by_dirichlet(labels, n_workers, seed, alpha=dirichlet_alpha)
    else:
        shards = of_unequal_sizes(len(labels), n_workers, seed, ratio=size_ratio)
    return Shards(shards=shards, batch_size=batch_size, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one worker has of the train examples."""

    examples: int
    of_class: tuple[int, ...]
    """By class, its number of examples; empty where examples have no single class."""


def shares_of(partition: Partition | Shards, labels: Tensor, n_classes: int) -> list[Share]:
    """Return what each worker has, by rank; empty if all workers draw from all examples.

    Args:
        partition: The partition.
        labels: (n,) int64 of the train examples, or (n, t) of windows of text.
        n_classes: The number of classes.
    """
    by_class = labels.dim() == 1 and not labels.is_floating_point()
    return [
        Share(
            examples=len(shard),
            of_class=tuple(labels[shard].bincount(minlength=n_classes).tolist()) if by_class else (),
        )
        for shard in partition.shards
    ]


_MAX_COLUMNS = 12  # classes that a summary counts one by one


def summary(partition: Partition | Shards, labels: Tensor, n_classes: int) -> list[str]:
    """Return, in lines of text, how many examples of which classes each worker has."""
    rounds = f"{partition.rounds_per_epoch:,} rounds in an epoch"
    shares = shares_of(partition, labels, n_classes)
    if not shares:
        return [f"every worker draws from all {len(labels):,} examples, anew in each epoch; {rounds}"]
    by_class = labels.dim() == 1
    columns = range(n_classes) if by_class and n_classes <= _MAX_COLUMNS else ()
    rows = [["worker", "examples", *(f"class {one}" for one in columns)] + (["classes", "largest"] if by_class else [])]
    for rank, share in enumerate(shares):
        row = [str(rank), f"{share.examples:,}", *(f"{share.of_class[one]:,}" for one in columns)]
        if by_class:
            row += [str(sum(count > 0 for count in share.of_class)), f"{max(share.of_class) / share.examples:.0%}"]
        rows.append(row)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [*lines, rounds]
