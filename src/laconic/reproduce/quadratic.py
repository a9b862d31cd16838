"""Setting F: quadratics whose constants are known, on which the theorems of the monograph are fitted.

Liu, Zhang: Distributed Learning Systems with First-Order Methods, 2020, Table 1.1.
f(x) = mean over n of x'A_n x / 2 + b_n'x with d = 20, mean A diagonal from 0.1 L to L in equal ratios, sum of b_n = 0
and f(x_1) - f* = 1. Gradients have noise of variance sigma^2 / d an element. eps is the mean over the iterates of
||f'(x)||^2, of the mean model where workers have their own: what the theorems bound.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from laconic.compressors import Compressor, dense
from laconic.contract import DENSE, Accept, Algorithm, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.random_keys import make_key
from laconic.random_streams import words
from laconic.statements import LaconicWarning
from laconic.training.simulation import Simulation
from laconic.wire import Dense

D = 20


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """The functions of N workers."""

    workers: int
    seed: int
    sigma: float = 0.0
    """Noise of a gradient."""
    disagreement: float = 0.0
    """Norm of each b_n."""
    difference: float = 0.0
    """By which share the A_n differ from their mean."""
    smoothness: float = 1.0
    """L."""

    def curvatures(self) -> Tensor:
        """Return the diagonals of the A_n, (N, d)."""
        mean: Tensor = self.smoothness * torch.logspace(-1, 0, D)
        around = self._numbers("curvatures").clamp(-1, 1)
        around -= around.mean(0)  # before it is scaled: the mean stays
        return mean * around.mul_(self.difference).add_(1)

    def slopes(self) -> Tensor:
        """Return the b_n, (N, d), whose sum is 0."""
        slopes = self._numbers("slopes")
        slopes -= slopes.mean(0)
        if self.workers == 1 or not self.disagreement:
            return torch.zeros_like(slopes)
        return slopes * (self.disagreement / float(torch.linalg.vector_norm(slopes, dim=1).mean()))

    def start(self) -> Tensor:
        """Return x_1, (d,), where f is 1 above its minimum."""
        direction = torch.randn(D, generator=self._generator("start"))
        mean = self.curvatures().mean(0)
        above = float((0.5 * mean * direction.square()).sum())
        return direction / math.sqrt(above)

    def noise(self, rank: int, step: int) -> Tensor:
        """Return the noise of a gradient, (d,)."""
        return torch.randn(D, generator=self._generator("noise", rank, step)) * (self.sigma / math.sqrt(D))

    def _numbers(self, what: str) -> Tensor:
        return torch.randn(self.workers, D, generator=self._generator(what))

    def _generator(self, what: str, rank: int = 0, step: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(make_key(self.seed, "data", rank, step, what) >> 1)


class _Point(nn.Module):
    """A model that is one vector."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(start)


def mean_squared_gradient(
    problem: Quadratic,
    algorithm: Algorithm,
    *,
    lr: float,
    steps: int,
    progress: Callable[[], object] = lambda: None,
) -> float:
    """Return eps: the mean of ||f'(x)||^2 over all iterates of a run.

    Args:
        problem: The functions.
        algorithm: The method.
        lr: Its learning rate.
        steps: The number of iterations T; of an asynchronous server, steps of all workers.
        progress: Called after each step.
    """
    model = _Point(problem.start())
    simulation = Simulation(
        model, torch.optim.SGD(model.parameters(), lr=lr), algorithm, workers=problem.workers, seed=problem.seed,
        lr="kept",
    )  # fmt: skip
    curvatures, slopes = problem.curvatures(), problem.slopes()
    mean_curvature = curvatures.mean(0)
    points: list[Tensor] = []
    total, n = 0.0, 0

    def loss(rank: int, step: int) -> Tensor:
        points.append(model.x.detach().clone())
        slope = slopes[rank] + problem.noise(rank, step) if problem.sigma else slopes[rank]
        return (0.5 * curvatures[rank] * model.x.square() + slope * model.x).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LaconicWarning)  # workers without noise have one function on purpose
        for step in range(steps):
            points.clear()
            simulation.step(lambda rank, step=step: loss(rank, step))  # type: ignore[misc]
            iterates = points if algorithm.is_asynchronous else [torch.stack(points).mean(0)]
            total += sum(float((mean_curvature * x).square().sum()) for x in iterates)
            n += len(iterates)
            progress()
    return total / n


@dataclass(frozen=True, kw_only=True)
class FixedGrid(Compressor):
    """Unbiased rounding to a fixed grid, whose error does not vanish with the vector: assumption 4 as it is printed.

    E ||Q(v) - v||^2 is at most d D^2 / 4, so sigma' = D sqrt(d) / 2.
    """

    name: ClassVar[str] = "fixed-grid"
    unbiased: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    width: float = hyperparameter(1.0, "D, distance of two grid points", within="(0, inf)")

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Dense:
        shares = torch.from_numpy((words(key, vector.numel(), offset) >> 11) * 2.0**-53)
        return dense(((vector.double() / self.width + shares).floor() * self.width).to(vector), offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return DENSE

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def paper_bits(self, spec: ModelSpec) -> float:
        return 32.0 * spec.d


def slope_of(points: Mapping[float, float] | Mapping[int, float]) -> float:
    """Return the slope of a straight line through logarithms, by least squares: log value over log place."""
    positions = torch.tensor(list(points), dtype=torch.float64).log()
    values = torch.tensor(list(points.values()), dtype=torch.float64).log()
    positions, values = positions - positions.mean(), values - values.mean()
    return float((positions * values).sum() / positions.square().sum())
