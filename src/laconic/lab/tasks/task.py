"""What a run trains: a task owns data, model, loss and metric.

Shapes: d parameters, N workers, b examples in a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from laconic.lab.partitions import Partition, Share
from laconic.lab.runs.divergence import Guess
from laconic.lab.shards import Shards


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Who trains: what a task needs to know to divide its work over the workers."""

    workers: int
    batch_size: int
    """Examples per worker and step."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How good a model is."""

    accuracy: float | None = None
    """The share of test examples that it classifies correctly; None where nothing is classified."""
    gap: float | None = None
    """f(x) - f*, the objective above its minimum; None where the minimum is not known."""
    metric: float | None = None
    """The figure of a user's own task."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The constants of the objective that the theorems of learning rates are about."""

    smoothness: float
    """L, the Lipschitz constant of f'."""
    noise: float
    """sigma: the square root of E ||g - f'_n||^2, of one worker's gradient."""
    disagreement: float = 0.0
    """varsigma: the square root of the mean over the workers of ||f'_n - f'||^2."""
    compression_error: float = 0.0
    """sigma': the square root of E ||Q(v) - v||^2, which the theorems assume to be bounded; 0 if it is not known."""


class Task(ABC):
    """Data, model, loss and metric of a run, the same on every rank."""

    measures_gradient: bool = False
    """Whether a run measures the squared norm of f' at the model before each step."""

    has_batches: bool = True
    """Whether workers take mini-batches, so that no two should bring the same gradient."""

    model: nn.Module
    steps_per_epoch: int
    """The number of steps of each worker in an epoch."""
    name: str
    """What it is, for the title of a table."""

    @abstractmethod
    def loss(self, rank: int, step: int) -> Tensor:
        """Return worker `rank`'s loss in this step, at the model's parameters. Equal arguments give equal numbers."""

    @abstractmethod
    def judge(self) -> Judgement:
        """Return how good the model is with its parameters."""

    @abstractmethod
    def described(self) -> Mapping[str, str | int | float | bool]:
        """Return what must be equal on all ranks, by a name for each figure."""

    def squared_gradient(self) -> float:
        """Return ||f'(x)||^2 at the model's parameters, where `measures_gradient` is true."""
        raise NotImplementedError

    def guess(self) -> Guess | None:
        """Return what a model reaches that gives the same answer to everything; None where nothing is classified."""
        return None

    def bounds(self) -> Bounds | None:
        """Return the constants of the objective; None where they are not known."""
        return None

    def shard_sizes(self) -> Sequence[int]:
        """Return how many examples each worker has of its own; empty where all share all."""
        partition: Partition | Shards | None = getattr(self, "partition", None)
        return [] if partition is None else [len(shard) for shard in partition.shards]

    def shares(self) -> Sequence[Share]:
        """Return what each worker has of the train examples, by rank; empty where all share all."""
        return [Share(examples=size, of_class=()) for size in self.shard_sizes()]

    def move_to(self, device: torch.device) -> None:  # noqa: B027 - a task may have nothing beside the model
        """Move what the model gets, to where this process computes. The model is there already."""
