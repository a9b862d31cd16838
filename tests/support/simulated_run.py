"""Small problems in float64 with keyed noise, and one algorithm's run on them, round by round.

Letters: d parameters, n workers, t the round. State number t is the one before round t.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from laconic.contract import Algorithm
from laconic.drivers.simulated.rounds import Simulated
from laconic.protocol.frames import Answer
from laconic.protocol.round_inputs import Inputs
from laconic.random_keys import make_key
from laconic.wire import encode
from support.jobs import matrices_of

torch.set_num_threads(1)


def normal(*shape: int, key: int) -> Tensor:
    """Standard normal numbers that depend on the key alone, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(key >> 1), dtype=torch.float64)


def steady(t: int) -> float:
    """A learning rate."""
    return 0.05


def wavy(t: int) -> float:
    """A learning rate that changes all the time."""
    return 0.05 * (1 + 0.8 * math.sin(2.3 * t))


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A function that n workers minimize. `gradient(rank, t, x)` is worker `rank`'s stochastic gradient at x (d,)."""

    start: Tensor
    n_workers: int
    gradient: Callable[[int, int, Tensor], Tensor]
    gap: Callable[[Tensor], float]  # how far the loss at x is above its minimum

    @property
    def d(self) -> int:
        return self.start.numel()

    def dealt(self, order: Sequence[int]) -> "Problem":
        """The same data in another order: worker `rank` gets the samples of worker `order[rank]`."""
        return replace(self, gradient=lambda rank, t, x: self.gradient(order[rank], t, x))


def quadratic(*, d: int = 37, n_workers: int = 4, noise: float = 0.3, seed: int = 0) -> Problem:
    """f_n(x) = (x - b_n)' A (x - b_n) / 2 with a diagonal A in [0.5, 1.5] that all share and b_n of each worker."""
    curvature = 0.5 + torch.rand(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    targets = normal(n_workers, d, key=make_key(seed, "data", 0, 0, "targets"))

    def gradient(rank: int, t: int, x: Tensor) -> Tensor:
        error = noise * normal(d, key=make_key(seed, "data", rank, t, "noise"))
        return curvature.to(x) * (x - targets[rank].to(x)) + error.to(x)

    def gap(x: Tensor) -> float:
        return float((curvature * (x - targets.mean(0)).square()).sum() / 2)

    return Problem(start=torch.zeros(d, dtype=torch.float64), n_workers=n_workers, gradient=gradient, gap=gap)


def linear(slope: Tensor, *, n_workers: int = 2) -> Problem:
    """f(x) = slope' x: a constant gradient (d,), the same for all workers, and no minimum."""
    return Problem(
        start=torch.zeros_like(slope), n_workers=n_workers,
        gradient=lambda rank, t, x: slope, gap=lambda x: float("inf"),
    )  # fmt: skip


def logistic(*, samples: int = 2000, d: int = 20, n_workers: int = 8, batch: int = 10, seed: int = 0) -> Problem:
    """Mean log-loss of labels sampled from a true model; each worker samples its batches from all samples."""
    points = normal(samples, d, key=make_key(seed, "data", 0, 0, "points"))
    true_model = 0.6 * normal(d, key=make_key(seed, "data", 0, 0, "truth"))
    exponents = torch.rand(samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = (exponents < torch.sigmoid(points @ true_model)).double()
    signed = points * (1 - 2 * labels)[:, None]  # the loss is the mean of log(1 + exp(signed @ x))

    def gradient(rank: int, t: int, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(make_key(seed, "data", rank, t, "batch") >> 1)
        sampled = signed[torch.randint(samples, (batch,), generator=generator)]
        return torch.sigmoid(sampled @ x) @ sampled / batch

    def loss(x: Tensor) -> float:
        return float(torch.nn.functional.softplus(signed @ x).mean())

    best = torch.zeros(d, dtype=torch.float64)
    for _ in range(20):  # Newton's method
        odds = torch.sigmoid(signed @ best)
        hessian = signed.T @ (signed * (odds * (1 - odds))[:, None])
        best -= torch.linalg.solve(hessian, signed.T @ odds)
    lowest = loss(best)
    start = torch.zeros(d, dtype=torch.float64)
    return Problem(start=start, n_workers=n_workers, gradient=gradient, gap=lambda x: loss(x) - lowest)


@dataclass(frozen=True, kw_only=True)
class State:
    """The state before round t: parameters, each worker's gradient at them, and memories."""

    t: int
    lr: float
    x: Tensor  # (d,)
    gradients: Tensor  # (n, d)
    residuals: Tensor  # (n, d), the workers'
    momenta: Tensor  # (n, d)
    server_residual: Tensor  # (d,)

    @property
    def residual_out(self) -> Tensor:
        """Om_t of the papers: the server's residual plus the mean of the workers'."""
        return self.server_residual + self.residuals.mean(0)


class Run:
    """A run of an algorithm on a problem, in the simulator, with SGD as the inner optimizer."""

    def __init__(
        self,
        algorithm: Algorithm,
        problem: Problem,
        *,
        lr: float | Callable[[int], float] = 0.1,
        dtype: torch.dtype = torch.float64,
        layout: str = "rank0",
        layers: Sequence[int] = (),
        **setup: Any,
    ) -> None:
        """`layers`: sizes of the parameter tensors; `setup`: further arguments of `Simulated`, as seed or link."""
        self.problem = problem
        self.lr_at = lr if callable(lr) else lambda t: lr
        self.x = problem.start.to(dtype)
        self.t = 0
        self.sim = Simulated(
            algorithm, spec=matrices_of(*(layers or (problem.d,))), n_workers=problem.n_workers,
            dtype=dtype, layout=layout, descend=self._descended, **setup,
        )  # fmt: skip

    def _descended(self, direction: Tensor, largest: float | None = None) -> Tensor:
        return self.x - self.lr_at(self.t) * direction

    def gradients(self) -> list[Tensor]:
        """Each worker's gradient at this moment."""
        return [self.problem.gradient(rank, self.t, self.x) for rank in range(self.problem.n_workers)]

    def step(self) -> Tensor:
        """Run one round; returns the vector that the workers applied, zeros if there was none."""
        algorithm, lr = self.sim.job.algorithm, self.lr_at(self.t)
        gradients = self.gradients()

        def inputs_of(rank: int) -> Inputs:
            vector = gradients[rank].clone() if algorithm.consumes == "gradient" else -lr * gradients[rank]
            return Inputs(
                vector=vector, parameters=self.x.clone(),
                gradient_at=lambda point: self.problem.gradient(rank, self.t, point),
            )  # fmt: skip

        outcome = self.sim.round(inputs_of, lr)
        if outcome.aborted:
            self.t += 1
            return torch.zeros_like(self.x)
        result = outcome.of(0)
        self._apply(result, lr)
        return result

    def _apply(self, result: Tensor, lr: float) -> None:
        algorithm = self.sim.job.algorithm
        if algorithm.returns == "parameters":
            self.x = result.clone()
        elif algorithm.consumes == "change":
            self.x = self.x + result
        else:
            self.x = self.x - lr * result
        self.t += 1

    def state(self) -> State:
        """A snapshot of the current state."""
        memories = [worker.me.memory for worker in self.sim.workers]
        slices = [session.view.memory["residual"] for session in self.sim.servers]
        return State(
            t=self.t, lr=self.lr_at(self.t), x=self.x, gradients=torch.stack(self.gradients()),
            residuals=torch.stack([memory["residual"] for memory in memories]),
            momenta=torch.stack([memory["momentum"] for memory in memories]),
            server_residual=torch.cat(slices) if slices else torch.zeros_like(self.x),
        )  # fmt: skip

    def states(self, rounds: int) -> Iterator[State]:
        """The state before each of the next rounds, and the one after the last: rounds + 1 in all."""
        for _ in range(rounds):
            yield self.state()
            self.step()
        yield self.state()

    def path(self, rounds: int) -> Tensor:
        """The parameters after each of the next rounds: (rounds, d)."""
        points = []
        for _ in range(rounds):
            self.step()
            points.append(self.x)
        return torch.stack(points)


def exchange_without(lost: Collection[int], simulated: Simulated, round_: int, number: int, lr: float) -> None:
    """Run one exchange with a single server, which the packets of the workers in `lost` do not reach."""
    job, server = simulated.job, simulated.servers[0]
    server.open(round_, number, lr)
    for worker in simulated.workers:
        frames, _ = worker.outgoing()
        if worker.rank not in lost:
            server.take(worker.rank, frames[0])
    answer = Answer.read(encode(server.answer()), job, 0, round_, number)
    for worker in simulated.workers:
        worker.receive({0: answer}, delivered=worker.rank not in lost)


class LossyRun(Run):
    """The packets of the workers in `lost(t)` never reach the server, and those workers know it."""

    def __init__(self, algorithm: Algorithm, problem: Problem, lost: Callable[[int], set[int]], **rest: Any) -> None:
        super().__init__(algorithm, problem, **rest)
        self.lost = lost

    def step(self) -> Tensor:
        lr, lost, workers, server = self.lr_at(self.t), self.lost(self.t), self.sim.workers, self.sim.servers[0]
        job = self.sim.job
        for worker, gradient in zip(workers, self.gradients(), strict=True):
            vector = gradient.clone() if job.algorithm.consumes == "gradient" else -lr * gradient
            at = partial(self.problem.gradient, worker.rank, self.t)
            worker.begin(self.t, Inputs(vector=vector, parameters=self.x.clone(), gradient_at=at), lr)
        for number in range(len(job.exchanges_in(self.t))):
            exchange_without(lost, self.sim, self.t, number, lr)
        for worker in workers:
            worker.close()
        server.close(happened=True)
        result = workers[0].result
        assert result is not None
        self._apply(result, lr)
        return result


def assert_same(left: Tensor, right: Tensor, *terms: Tensor, to: float = 1e-12) -> None:
    """left = right up to `to` times the largest element of either, or of the terms that were added."""
    size = max(float(term.abs().max()) for term in (left, right, *terms))
    worst = float((left - right).abs().max())
    assert worst <= to * size, f"{worst:.3g} apart, where rounding allows {to * size:.3g}"
