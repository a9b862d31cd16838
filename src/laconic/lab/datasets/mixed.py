"""Several data sets in one run: each worker has examples of one of them, as in the heterogeneous experiment of SASG.

Deng, Li, Sun, Lu: Communication-Efficient Distributed Learning via Sparse and Adaptive Stochastic Gradient, figure 5:
even workers have CIFAR-10, odd ones MNIST. Pictures get one shape: smaller ones a margin of background, gray ones three
equal channels. All classes share one head: class 3 of one set is class 3 of the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from laconic.errors import Named, OptionError
from laconic.lab.datasets.dataset import Dataset
from laconic.lab.shards import Shards
from laconic.random_keys import make_key

_RANKS = re.compile(r"([0-9]+)(?:-([0-9]+))?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Mixed:
    """The data sets as one, and who has which."""

    dataset: Dataset
    train_sizes: tuple[int, ...] = field(repr=False)
    """By data set, its number of train examples, which follow each other."""
    test_sizes: tuple[int, ...] = field(repr=False)
    set_of: tuple[int, ...]
    """By worker, the number of its data set."""

    def shards(self, batch_size: int, seed: int) -> Shards:
        """Return the partition: the workers of a data set share it in random shards of equal sizes."""
        shards: dict[int, Tensor] = {}
        start = 0
        for number, size in enumerate(self.train_sizes):
            ranks = [rank for rank, its in enumerate(self.set_of) if its == number]
            generator = torch.Generator().manual_seed(make_key(seed, "data", number, 0, "mixed shards"))
            order = start + torch.randperm(size, generator=generator)
            shards |= dict(zip(ranks, torch.tensor_split(order, len(ranks)), strict=True))
            start += size
        return Shards(shards=tuple(shards[rank] for rank in range(len(self.set_of))), batch_size=batch_size, seed=seed)


def data_of_workers(rules: Mapping[str, str], workers: int) -> list[str]:
    """Return the data set of each worker by rules such as {"even": "cifar10:PATH", "odd": "mnist:PATH"}.

    Args:
        rules: By who it is for: even, odd, a rank, or ranks such as 0-4.
        workers: The number of workers.

    Raises:
        OptionError: A rule is for nobody, or a worker has none or two.
    """
    found: dict[int, str] = {}
    for who, text in rules.items():
        ranks = _ranks_of(who, workers)
        doubled = next((rank for rank in ranks if rank in found), None)
        if doubled is not None:
            raise OptionError(Named("worker_data", who), f": worker {doubled} has {found[doubled]} already")
        found |= dict.fromkeys(ranks, text)
    without = next((rank for rank in range(workers) if rank not in found), None)
    if without is not None:
        raise OptionError(Named("worker_data"), f": worker {without} has no data set; add {without}=NAME:PATH")
    return [found[rank] for rank in range(workers)]


def _ranks_of(who: str, workers: int) -> list[int]:
    ranks = range(workers)
    if who in ("even", "odd"):
        return [rank for rank in ranks if rank % 2 == (who == "odd")]
    match = _RANKS.fullmatch(who)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if not low <= high < workers:
        raise OptionError(
            Named("worker_data", who), f" must be even, odd, a rank or ranks such as 0-4, of 0 to {workers - 1}"
        )
    return list(range(low, high + 1))


def mixed(names: Sequence[str], datasets: Mapping[str, Dataset]) -> Mixed:
    """Return the data sets as one.

    Args:
        names: By worker, its data set.
        datasets: By name, each once.

    Raises:
        OptionError: One is no set of pictures, or channels do not go together.
    """
    sets = list(datasets.values())
    for one in sets:
        if len(one.input_shape) != 3:
            raise OptionError(
                Named("worker_data"), f": {one.name} has inputs of shape {one.input_shape}, and only pictures can be "
                "mixed, whose shape is (channels, height, width)",
            )  # fmt: skip
    channels, height, width = (max(one.input_shape[place] for one in sets) for place in range(3))
    if any(one.input_shape[0] not in (1, channels) for one in sets):
        raise OptionError(Named("worker_data"), ": pictures with several channels must have equally many")

    def joined(split: str) -> Tensor:
        return torch.cat([_fitted(one, getattr(one, f"{split}_inputs"), (channels, height, width)) for one in sets])

    numbers = {name: number for number, name in enumerate(datasets)}
    return Mixed(
        dataset=Dataset(
            name=" and ".join(one.name for one in sets), n_classes=max(one.n_classes for one in sets),
            train_inputs=joined("train"), train_labels=torch.cat([one.train_labels for one in sets]),
            test_inputs=joined("test"), test_labels=torch.cat([one.test_labels for one in sets]),
        ),
        train_sizes=tuple(len(one.train_labels) for one in sets),
        test_sizes=tuple(len(one.test_labels) for one in sets), set_of=tuple(numbers[name] for name in names),
    )  # fmt: skip


def _fitted(dataset: Dataset, inputs: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return pictures (n, c, h, w) in a shape (c, h, w) that is not smaller."""
    channels, height, width = shape
    lacks = (height - inputs.shape[2], width - inputs.shape[3])
    left, top = lacks[1] // 2, lacks[0] // 2
    margins = (left, lacks[1] - left, top, lacks[0] - top)
    black = dataset.background or (float(dataset.train_inputs.min()),) * inputs.shape[1]
    padded = [nn.functional.pad(inputs[:, [channel]], margins, value=value) for channel, value in enumerate(black)]
    return torch.cat(padded, 1).expand(-1, channels, -1, -1).contiguous()
