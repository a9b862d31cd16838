"""A quadratic with everything known: constants, minimum and gradient.

f(x) = 1/N sum_n f_n(x) with f_n(x) = x'A_n x / 2 + b_n'x, and f(x_1) - f* = 1. The mean of the A_n has eigenvalues from
`lowest` to L = `highest`, and the b_n add up to zero, so the minimum is at 0. A worker's gradient is f'_n plus normal
noise of variance sigma^2 / d an entry. It satisfies the assumptions of Liu, Zhang: Distributed Learning Systems with
First-Order Methods, 2020, so that their rates can be measured.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from laconic.hyperparameters import check_hyperparameters, hyperparameter
from laconic.lab.datasets.hashing import hash_of
from laconic.lab.tasks.task import Bounds, Judgement, Shares, Task
from laconic.random_keys import make_key


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """A quadratic: minimum, L and noise are known. Needs no data."""

    has_examples: ClassVar[bool] = False
    takes_data: ClassVar[bool] = False
    takes_model: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ("gap", "mean_squared_gradient")
    judged_by: ClassVar[str] = "gap"

    dimension: int = hyperparameter(20, "d, the number of parameters", within="[1, inf)")
    lowest: float = hyperparameter(0.1, "the lowest eigenvalue of the mean A", within="(0, inf)")
    highest: float = hyperparameter(1.0, "L, the highest eigenvalue of the mean A", within="(0, inf)")
    noise: float = hyperparameter(0.0, "sigma, the standard deviation of a worker's gradient", within="[0, inf)")
    disagreement: float = hyperparameter(
        0.0, "the root mean square over the workers of the norm of b_n, whose sum is 0", within="[0, inf)"
    )
    curvature_range: float = hyperparameter(
        0.0, "by which share the eigenvalues of the workers' A_n differ from the mean's at most", within="[0, 1)"
    )
    compression_error: float = hyperparameter(
        0.0, "sigma', the bound on what a compressor leaves, for --lr theory of csgd and ec-sgd", within="[0, inf)"
    )
    rounds: int = hyperparameter(256, "the number of steps in an epoch", within="[1, inf)")

    def __post_init__(self) -> None:
        check_hyperparameters(self, "quadratic")
        if self.lowest > self.highest:
            raise ValueError(f"quadratic: lowest={self.lowest} must be at most highest={self.highest}")

    def task(self, shares: Shares) -> "QuadraticTask":
        """Return the task of these workers."""
        return QuadraticTask(self, shares)


class _Point(nn.Module):
    """A model that is its parameters: x (d,)."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(x)

    def forward(self) -> Tensor:
        return self.x


class QuadraticTask(Task):
    """The quadratic of one run. Which one it is follows from the seed."""

    measures_gradient = True
    has_batches = False

    def __init__(self, settings: Quadratic, shares: Shares) -> None:
        """Sample the A_n, the b_n and x_1."""
        self._settings, self._seed = settings, shares.seed
        self.name = "quadratic"
        self.steps_per_epoch = settings.rounds
        d, n = settings.dimension, shares.workers
        self._mean, self._matrices = _matrices(settings, shares)  # (d, d) float64, (N, d, d) float32
        vectors = self._normal(n, d, stream="vectors")
        vectors -= vectors.mean(0)
        size = math.sqrt(float(vectors.square().sum()) / n)
        self._vectors = (vectors * (settings.disagreement / size if size else 0.0)).float()  # (N, d)
        start = self._normal(d, stream="start")
        start /= math.sqrt(float(start @ self._mean @ start) / 2)
        self.model = _Point(start.float())
        self._noise = settings.noise / math.sqrt(d)
        self._differs = bool(settings.disagreement) and n > 1

    def _normal(self, *shape: int, stream: str, rank: int = 0, step: int = 0) -> Tensor:
        """Return normal numbers of this shape, float64."""
        return _normal(self._seed, *shape, stream=stream, rank=rank, step=step)

    def loss(self, rank: int, step: int) -> Tensor:
        """Return f_n(x) plus noise'x, whose gradient is that of the worker."""
        x: Tensor = self.model()
        slope = self._vectors[rank]
        if self._noise:
            noise = self._normal(len(slope), stream="noise", rank=rank, step=step).float().to(x.device)
            slope = slope + self._noise * noise
        return x @ (self._matrices[rank] @ x) / 2 + slope @ x

    @torch.no_grad()
    def judge(self) -> Judgement:
        """Return f(x) - f*, in float64."""
        x = self.model().double()
        return Judgement(gap=float(x @ self._mean @ x) / 2)

    @torch.no_grad()
    def squared_gradient(self) -> float:
        """Return ||f'(x)||^2, in float64."""
        return float((self._mean @ self.model().double()).square().sum())

    def bounds(self) -> Bounds:
        """Return L, sigma, the size of the b_n and sigma'."""
        settings = self._settings
        return Bounds(
            smoothness=settings.highest, noise=settings.noise,
            disagreement=settings.disagreement if self._differs else 0.0,
            compression_error=settings.compression_error,
        )  # fmt: skip

    def described(self) -> Mapping[str, str | int | float | bool]:
        """Return a hash of the A_n and b_n."""
        return {"task": self.name, "hash of the problem": hash_of(self._matrices.cpu(), self._vectors.cpu())}

    def move_to(self, device: torch.device) -> None:
        """Move the A_n and b_n."""
        self._mean = self._mean.to(device)
        self._matrices, self._vectors = self._matrices.to(device), self._vectors.to(device)


def _matrices(settings: Quadratic, shares: Shares) -> tuple[Tensor, Tensor]:
    """Return the mean A (d, d) float64, and the workers' A_n (N, d, d) float32, all with the same eigenvectors."""
    d, n = settings.dimension, shares.workers
    eigenvalues = torch.logspace(math.log10(settings.lowest), math.log10(settings.highest), d, dtype=torch.float64)
    vectors = torch.linalg.qr(_normal(shares.seed, d, d, stream="eigenvectors")).Q
    differences = _normal(shares.seed, n, d, stream="curvatures")
    differences -= differences.mean(0)
    largest = float(differences.abs().max())
    factors = 1 + (settings.curvature_range / largest if largest else 0.0) * differences  # (N, d), of mean 1
    own = (vectors * (factors * eigenvalues).unsqueeze(1)) @ vectors.T
    return (vectors * eigenvalues) @ vectors.T, own.float()


def _normal(seed: int, *shape: int, stream: str, rank: int = 0, step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(make_key(seed, "data", rank, step, f"quadratic {stream}") >> 1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
