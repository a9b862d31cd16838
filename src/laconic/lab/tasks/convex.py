"""Convex tasks on data of two classes, with their exact minimum: logistic regression and least squares.

f(w) = 1/n sum_i phi(y_i x_i'w) + l2/2 ||w||^2 with y_i = 1 or -1, where phi(m) = log(1 + e^-m), or (1 - m)^2 / 2 of
least squares: (y_i - x_i'w)^2 / 2. The minimum is found by Newton's method, so that the gap f(w) - f* is true. Rows
stay sparse.
Shapes: n examples, c features with the constant one, b examples in a batch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from laconic.errors import Named, OptionError
from laconic.hyperparameters import check_hyperparameters, hyperparameter
from laconic.lab.datasets.hashing import hash_of
from laconic.lab.datasets.sparse import Products, SparseDataset
from laconic.lab.partitions import Partition
from laconic.lab.runs.divergence import Guess
from laconic.lab.shards import Shards
from laconic.lab.tasks.task import Bounds, Judgement, Task

_MAX_FEATURES = 4096  # of the matrix that Newton's method solves with: 128 MiB
_NEWTON_STEPS = 100
_HALVINGS = 40
_PRECISION = 1e-13  # of the decrease that Newton's method promises, relative to f


@dataclass(frozen=True, kw_only=True)
class _Convex:
    """What both tasks have in common."""

    has_examples: ClassVar[bool] = True
    takes_data: ClassVar[bool] = True
    takes_model: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("gap", "mean_squared_gradient")
    name: ClassVar[str] = ""

    l2: float = hyperparameter(1e-4, "the factor of half the squared norm of the weights", within="(0, inf)")
    bias: bool = hyperparameter(True, "whether one more feature is 1 in all examples; its weight counts in l2 too")
    gap: bool = hyperparameter(True, "whether the minimum is found first, which needs at most 4,096 features")
    squared_gradient: bool = hyperparameter(
        False, "whether the gradient of all examples is measured before each step, which takes a pass over them"
    )

    def __post_init__(self) -> None:
        check_hyperparameters(self, self.name)

    @property
    def judged_by(self) -> str:
        """The figure that a run is judged by."""
        return "gap" if self.gap else "test_accuracy"


@dataclass(frozen=True, kw_only=True)
class Logistic(_Convex):
    """Logistic regression of two classes on sparse rows, with its exact minimum."""

    name: ClassVar[str] = "logistic"

    @staticmethod
    def phi(margins: Tensor) -> Tensor:
        """Return log(1 + e^-m)."""
        return nn.functional.softplus(-margins)

    @staticmethod
    def slope(margins: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return phi'(m) = -1 / (1 + e^m)."""
        return -0.5 * (1 - numpy.tanh(margins / 2))

    @staticmethod
    def curvature(margins: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return phi''(m)."""
        curvature: NDArray[numpy.float64] = 0.25 / numpy.cosh(numpy.clip(margins / 2, -300, 300)) ** 2
        return curvature

    highest_curvature: ClassVar[float] = 0.25


@dataclass(frozen=True, kw_only=True)
class Ridge(_Convex):
    """Least squares to the classes -1 and 1 on sparse rows, with its exact minimum."""

    name: ClassVar[str] = "least-squares"

    @staticmethod
    def phi(margins: Tensor) -> Tensor:
        """Return (1 - m)^2 / 2."""
        return (1 - margins).square() / 2

    @staticmethod
    def slope(margins: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return phi'(m) = m - 1."""
        return margins - 1

    @staticmethod
    def curvature(margins: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return phi''(m) = 1."""
        return numpy.ones_like(margins)

    highest_curvature: ClassVar[float] = 1.0


class _Weights(nn.Module):
    """A model that is its weights, (c,), first 0."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count))


class Objective:
    """f in float64, over all train examples."""

    def __init__(self, kind: Logistic | Ridge, products: Products, signs: NDArray[numpy.float64]) -> None:
        """Keep X and the y_i."""
        self._kind, self.products, self._signs = kind, products, signs

    def value(self, weights: NDArray[numpy.float64]) -> float:
        """Return f(w)."""
        losses = self._kind.phi(torch.from_numpy(self._margins(weights)))
        return float(losses.mean()) + self._kind.l2 / 2 * float(weights @ weights)

    def gradient(self, weights: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return f'(w), (c,)."""
        slopes = self._signs * self._kind.slope(self._margins(weights))
        return self.products.transposed_times(slopes) / len(slopes) + self._kind.l2 * weights

    def of_examples(self, rows: NDArray[numpy.int64]) -> NDArray[numpy.float64]:
        """Return the gradient at 0 of some examples alone, (c,)."""
        slopes = numpy.zeros(len(self._signs))
        slopes[rows] = (self._signs * self._kind.slope(numpy.zeros(len(self._signs))))[rows]
        return self.products.transposed_times(slopes) / len(rows)

    def minimum(self) -> float:
        """Return f*, by Newton's method with steps that are halved until f falls.

        Raises:
            OptionError: The data are too far from what float64 can solve for: it was not found.
        """
        weights = numpy.zeros(self.products.shape[1])
        value = self.value(weights)
        for _ in range(_NEWTON_STEPS):
            gradient = self.gradient(weights)
            curvatures = self._kind.curvature(self._margins(weights)) / len(self._signs)
            hessian = self.products.gram(curvatures)
            hessian[numpy.diag_indices_from(hessian)] += self._kind.l2
            step = _solved(hessian, gradient)
            if step is None:
                break
            if gradient @ step <= _PRECISION * abs(value):
                return value
            for halvings in range(_HALVINGS):
                tried = weights - 0.5**halvings * step
                if (lower := self.value(tried)) < value:
                    break
            else:
                return value  # rounding hides any further fall
            weights, value = tried, lower
        raise OptionError(
            Named("task_set"), f" gap=true: Newton's method does not find the minimum in {_NEWTON_STEPS} steps; scale "
            f"the features so that they are about 1, raise l2 above {self._kind.l2:g}, or give gap=false",
        )  # fmt: skip

    def noise_at_0(self, batch_size: int) -> float:
        """Return the standard deviation of the gradient of a batch at w = 0."""
        slopes = self._kind.slope(numpy.zeros(len(self._signs)))
        second = float((slopes**2 * self.products.squared_norms()).mean())
        mean = self.gradient(numpy.zeros(self.products.shape[1]))
        return math.sqrt(max(0.0, second - float(mean @ mean)) / batch_size)

    def smoothness(self) -> float:
        """Return a bound on L: the highest phi'' times the highest eigenvalue of X'X / n, plus l2."""
        n, _ = self.products.shape
        highest = numpy.linalg.eigvalsh(self.products.gram(numpy.full(n, 1 / n)))[-1]
        return self._kind.highest_curvature * float(highest) + self._kind.l2

    def _margins(self, weights: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        return self._signs * self.products.times(weights)


def _solved(matrix: NDArray[numpy.float64], vector: NDArray[numpy.float64]) -> NDArray[numpy.float64] | None:
    """Return the solution x of Ax = b; None if rounding leaves none."""
    try:
        solution = numpy.asarray(numpy.linalg.solve(matrix, vector), dtype=numpy.float64)
    except numpy.linalg.LinAlgError:
        return None
    return solution if numpy.isfinite(solution).all() else None


class ConvexTask(Task):
    """Logistic regression or least squares of one run."""

    model: _Weights

    def __init__(self, kind: Logistic | Ridge, data: SparseDataset, partition: Partition | Shards) -> None:
        """Set up the task, and find its minimum if that is wanted.

        Raises:
            OptionError: The data have more than two classes, too many features for the minimum, or none that is found.
        """
        if data.n_classes != 2:
            raise OptionError(
                Named("task", kind.name), f" is for two classes, and {data.name} has {data.n_classes}; take ",
                Named("task", "classifier"), " and ", Named("model", "linear"),
            )  # fmt: skip
        self._kind, self.partition = kind, partition
        self.name = f"{data.name}, {kind.name}"
        self.steps_per_epoch = partition.rounds_per_epoch
        self._train, self._test = (rows.with_constant() if kind.bias else rows for rows in (data.train, data.test))
        self._signs, self._test_labels = 2.0 * data.train_labels - 1, data.test_labels
        self.model = _Weights(self._train.n_columns)
        self.measures_gradient = kind.squared_gradient
        self._objective = Objective(kind, Products(self._train), self._signs.double().numpy())
        self._tested = Products(self._test)
        self._batch_size = partition.batch_size
        self._device = torch.device("cpu")
        if kind.gap and self._train.n_columns > _MAX_FEATURES:
            raise OptionError(
                Named("task_set"), f" gap=true: {data.name} has {self._train.n_columns:,} features, and the minimum is "
                f"found of at most {_MAX_FEATURES:,}; give gap=false",
            )  # fmt: skip
        self.minimum = self._objective.minimum() if kind.gap else None
        """f*."""

    def loss(self, rank: int, step: int) -> Tensor:
        """Return worker `rank`'s loss on its mini-batch."""
        batch = self.partition.batch(rank, step)
        row, columns, values = self._train.taken(batch)
        weights = self.model.weights
        row, columns, values = row.to(self._device), columns.to(self._device), values.to(self._device)
        scores = torch.zeros(len(batch), device=self._device).index_add(0, row, values * weights[columns])
        losses = self._kind.phi(self._signs[batch].to(self._device) * scores)
        return losses.mean() + self._kind.l2 / 2 * weights.square().sum()

    @torch.no_grad()
    def judge(self) -> Judgement:
        """Return the test accuracy, and the gap if the minimum is known."""
        weights = self._weights()
        right = (self._tested.times(weights) > 0) == self._test_labels.numpy()
        gap = None if self.minimum is None else self._objective.value(weights) - self.minimum
        return Judgement(accuracy=float(right.mean()), gap=gap)

    @torch.no_grad()
    def squared_gradient(self) -> float:
        """Return ||f'(w)||^2 over all train examples."""
        gradient = self._objective.gradient(self._weights())
        return float(gradient @ gradient)

    def _weights(self) -> NDArray[numpy.float64]:
        weights: NDArray[numpy.float64] = self.model.weights.detach().double().cpu().numpy()
        return weights

    def guess(self) -> Guess:
        """Return what the first weights reach, which are 0."""
        share = float((self._test_labels == 0).float().mean())
        return Guess(accuracy=max(share, 1 - share), loss=float(self._kind.phi(torch.zeros(1))))

    def bounds(self) -> Bounds:
        """Return a bound on L, and sigma and varsigma at w = 0, where the run begins.

        Raises:
            OptionError: There are too many features.
        """
        if self._train.n_columns > _MAX_FEATURES:
            raise OptionError(Named("lr", "theory"), f" is for at most {_MAX_FEATURES:,} features; give a number")
        mean = self._objective.gradient(numpy.zeros(self._train.n_columns))
        apart = [self._objective.of_examples(shard.numpy()) - mean for shard in self.partition.shards]
        squares = [float(each @ each) for each in apart]
        return Bounds(
            smoothness=self._objective.smoothness(), noise=self._objective.noise_at_0(self._batch_size),
            disagreement=math.sqrt(sum(squares) / len(squares)) if squares else 0.0,
        )  # fmt: skip

    def described(self) -> Mapping[str, str | int | float | bool]:
        """Return hashes of the examples."""
        rows = {"train": (self._train, self._signs), "test": (self._test, self._test_labels)}
        hashes = {
            f"{split} examples/hash of the values": hash_of(each.offsets, each.columns, each.values, labels)
            for split, (each, labels) in rows.items()
        }
        return {"task": self.name, "steps per epoch": self.steps_per_epoch, **hashes}

    def move_to(self, device: torch.device) -> None:
        """Rows stay on the CPU; those of a batch are moved."""
        self._device = device
