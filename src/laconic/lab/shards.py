"""Partitions with unlike workers: each has a shard of its own for the full run.

- labels: each worker has a few shards of the examples in the order of their labels, so that it knows few classes.
  McMahan et al.: Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017.
- dirichlet: the examples of each class are divided among the workers by shares from Dirichlet(alpha).
  Hsu, Qi, Brown: Measuring the Effects of Non-Identical Data Distribution, 2019 (arXiv:1909.06335).
  Differs: shares are drawn for each class, as in later work, not for each worker, so that every example has a worker.
- unequal: shards of a random order, whose sizes rise geometrically with the rank.

An epoch is as many rounds as with equal shards, so a worker with a small shard goes through it several times. It
reshuffles it each time. Shapes: n examples, w workers, b examples in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy
import torch
from torch import Tensor

from laconic.errors import Named, OptionError
from laconic.random_keys import make_key


@dataclass(frozen=True, kw_only=True)
class Shards:
    """The batches of workers with shards of their own. They depend on the fields alone, not on the order of the calls.

    Raises:
        OptionError: A worker's shard does not fill a batch.
    """

    shards: tuple[Tensor, ...] = field(repr=False)
    """By worker, the indices of its examples, int64."""
    batch_size: int
    """Examples per worker and round."""
    seed: int
    # Worker -> its last pass, and the order of the shard in it.
    _orders: dict[int, tuple[int, Tensor]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        sizes = [len(shard) for shard in self.shards]
        if min(sizes) < self.batch_size:
            rank = sizes.index(min(sizes))
            remedy = f"take at most {min(sizes)}" if min(sizes) else "take fewer workers, or a milder partition"
            raise OptionError(
                Named("batch_size", self.batch_size), f" is too large: the shard of worker {rank} has {min(sizes):,} "
                f"examples of {sum(sizes):,}, and each worker needs a full batch; {remedy}",
            )  # fmt: skip

    @property
    def rounds_per_epoch(self) -> int:
        """The number of rounds in which all workers together take as many examples as there are."""
        return sum(map(len, self.shards)) // (len(self.shards) * self.batch_size)

    def batch(self, rank: int, round_number: int) -> Tensor:
        """Return the examples of one worker in one round, (b,) int64, without repeats.

        Args:
            rank: The worker.
            round_number: The round, counted from 0 over all epochs.
        """
        shard = self.shards[rank]
        pass_, place = divmod(round_number, len(shard) // self.batch_size)
        known, order = self._orders.get(rank, (-1, shard))
        if known != pass_:
            generator = torch.Generator().manual_seed(make_key(self.seed, "data", rank, pass_, "order"))
            order = shard[torch.randperm(len(shard), generator=generator)]
            self._orders[rank] = pass_, order
        return order[place * self.batch_size : (place + 1) * self.batch_size].clone()


def by_labels(labels: Tensor, n_workers: int, seed: int, *, per_worker: int) -> tuple[Tensor, ...]:
    """Return shards of examples in the order of their labels, `per_worker` of them joined for each worker.

    Args:
        labels: (n,) int64.
        n_workers: The number of workers.
        seed: Of all draws.
        per_worker: The number of shards of each worker.
    """
    shuffled = _permutation(len(labels), seed, "shards")
    ordered = shuffled[torch.argsort(labels[shuffled], stable=True)]
    parts = torch.tensor_split(ordered, n_workers * per_worker)
    dealt = _permutation(len(parts), seed, "dealt").view(n_workers, per_worker).tolist()
    return tuple(torch.cat([parts[part] for part in of_worker]) for of_worker in dealt)


def by_dirichlet(labels: Tensor, n_workers: int, seed: int, *, alpha: float) -> tuple[Tensor, ...]:
    """Return shards in which each class is divided by shares from Dirichlet(alpha).

    Args:
        labels: (n,) int64.
        n_workers: The number of workers.
        seed: Of all draws.
        alpha: Above 0. Small values give each class to few workers, large ones give all workers the same.
    """
    draws = numpy.random.Generator(numpy.random.PCG64(make_key(seed, "data", 0, 0, "dirichlet")))
    shuffled = _permutation(len(labels), seed, "shards")
    parts: list[list[Tensor]] = [[] for _ in range(n_workers)]
    for one in range(int(labels.max()) + 1):
        of_class = shuffled[labels[shuffled] == one]
        ends = numpy.cumsum(draws.dirichlet([alpha] * n_workers))[:-1]
        bounds = [round(float(end) * len(of_class)) for end in ends]
        for rank, part in enumerate(torch.tensor_split(of_class, bounds)):
            parts[rank].append(part)
    return tuple(torch.cat(of_worker) for of_worker in parts)


def of_unequal_sizes(n_examples: int, n_workers: int, seed: int, *, ratio: float) -> tuple[Tensor, ...]:
    """Return shards of a random order, the last `ratio` times as large as the first.

    Args:
        n_examples: The number of examples.
        n_workers: The number of workers.
        seed: Of all draws.
        ratio: At least 1.
    """
    weights = ratio ** (numpy.arange(n_workers) / max(1, n_workers - 1))
    ends = (numpy.cumsum(weights) / weights.sum())[:-1]
    bounds = [round(float(end) * n_examples) for end in ends]
    return tuple(torch.tensor_split(_permutation(n_examples, seed, "shards"), bounds))


def _permutation(n: int, seed: int, stream: str) -> Tensor:
    generator = torch.Generator().manual_seed(make_key(seed, "data", 0, 0, stream))
    return torch.randperm(n, generator=generator)
