"""The golden runs: small jobs whose figures are the same on every processor, and the figures that are saved.

A worker's gradient is T(rank, step) + x / 8, element by element. T is a table of hashed counters, so that no matrix
product, no transcendental function and no sum over elements is needed for a gradient. Learning rates and weights of
mixing are powers of two: a product with one is exact, and it does not matter whether a processor rounds it before it
adds. The keys of runs and figures are this module's own words. They stay when the library's names change.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import laconic
from laconic.network import ComputeTime

LAYOUTS = {
    "all-reduce": "allreduce",
    "server at rank 0": "rank0",
    "all-gather": "allgather",
    "dedicated server": "dedicated",
    "sharded servers": "sharded",
    "graph": "peers",
}
FAULTS = {"lost": "lost", "late": "late", "duplicated": "duplicated", "corrupted": "corrupted", "crashed": "crashed"}
UPDATES = {"dropped": "dropped", "held": "held", "aborted": "aborted"}

SHAPES = ((17, 9), (17,), (5, 17), (5,), (1,))
SIZES = [int(np.prod(shape)) for shape in SHAPES]
D = sum(SIZES)  # 261: no multiple of what a processor works on at once
LR = 0.125
CURVATURE = 0.125
_STEPS_ALIKE = 4  # of a worker's table, so that methods that skip have something to skip


@lru_cache(maxsize=4096)
def table(rank: int, step: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Worker `rank`'s elements (D,) of one step: multiples of 2**-17 between -1.02 and 1.02, exact in float32."""
    slow, fast = (
        _hashed(np.arange(D, dtype=np.uint64) + np.uint64((n << 40) + (rank << 32) + (step // every << 16)))
        for n, every in ((1, _STEPS_ALIKE), (2, 1))
    )
    return torch.from_numpy((slow >> np.uint64(46)) / 2.0**17 - 1 + ((fast >> np.uint64(57)) / 64 - 1) / 64).to(dtype)


def _hashed(counters: np.ndarray) -> np.ndarray:
    """SplitMix64 of each counter, uint64."""
    words = (counters + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


class _TableLoss(torch.autograd.Function):
    """A loss whose gradient is `slope` + parameters / 8; its value is the first parameter."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(slope, *parameters)
        return parameters[0].reshape(-1)[0].clone()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        slope, *parameters = ctx.saved_tensors
        parts = zip(slope.split([p.numel() for p in parameters]), parameters, strict=True)
        return None, *(part.view_as(p) + CURVATURE * p for part, p in parts)


class TableModel(nn.Module):
    """D parameters, and a buffer that each loss changes."""

    def __init__(self, dtype: torch.dtype, unused: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.used = [i for i in range(len(SHAPES)) if i not in unused]
        start = table(99, 0, dtype).split(SIZES)
        self.weights = nn.ParameterList(
            nn.Parameter(part.clone().view(s)) for part, s in zip(start, SHAPES, strict=True)
        )
        self.register_buffer("average", torch.zeros(3, dtype=dtype))

    def loss(self, slope: Tensor) -> Tensor:
        """The loss whose gradient is `slope` (D,) + parameters / 8, for the parameters that are used."""
        self.average.mul_(0.5).add_(slope[:3])
        parts = slope.split(SIZES)
        return _TableLoss.apply(torch.cat([parts[i] for i in self.used]), *(self.weights[i] for i in self.used))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One golden run. parameters: "exact", "float32" (rounded to it before they are hashed) or "about" (a few)."""

    algorithm: laconic.Algorithm
    layout: str
    workers: int = 4
    steps: int = 50
    dtype: torch.dtype = torch.float32
    local_steps: int = 1
    learning_rates: tuple[float, ...] = (LR,)  # of as many parameter groups
    halved_at: int | None = None  # the step at which learning rates are halved
    infinite_at: tuple[int, int] | None = None  # (rank, step) of an infinite gradient
    unused: tuple[int, ...] = ()  # the numbers of parameters that get no gradient
    faults: laconic.FaultPlan | None = None
    link: laconic.Link = field(default_factory=lambda: laconic.Link(bytes_per_s=1e6, latency_s=1e-4))
    tail_s: float = 0.0  # mean of the random part of a computing time, seconds
    parameters: str = "exact"

    def simulation(self) -> tuple[TableModel, laconic.Simulation]:
        """The job before its first step. Raises ValueError for a layout that the method does not admit."""
        model = TableModel(self.dtype, self.unused)
        weights = list(model.weights)
        n = len(self.learning_rates)
        groups = [{"params": weights[i::n], "lr": lr} for i, lr in enumerate(self.learning_rates)]
        inner = torch.optim.SGD(groups, lr=LR)
        computing = ComputeTime(seconds={i: 0.003 + 0.0005 * i for i in range(self.workers)}, tail_s=self.tail_s)
        slower = {1: laconic.Link(bytes_per_s=3e5, latency_s=2e-4)} if self.workers > 1 else None
        simulation = laconic.Simulation(
            model, inner, self.algorithm, workers=self.workers, layout=LAYOUTS[self.layout], seed=11,
            local_steps=self.local_steps, link=self.link, links=slower, compute_s=computing, faults=self.faults,
        )  # fmt: skip
        return model, simulation

    def run(self) -> dict[str, Any]:
        """The figures that are saved."""
        model, simulation = self.simulation()
        losses: list[list[float]] = []
        for step in range(self.steps):
            if step == self.halved_at:
                for group in simulation.inner.param_groups:
                    group["lr"] /= 2
            losses.append(simulation.step(partial(self._loss, model, step)))
        simulation.exchange_steps()
        every = [simulation.traffic_of(rank) for rank in range(self.workers)]
        of_losses = (
            {} if self.parameters == "about" else {"losses": hashed([torch.tensor(losses, dtype=torch.float64)])}
        )
        return self.of_parameters(model, simulation) | {
            **of_losses,
            "ns": simulation.driver.clock.now_ns,
            **of_traffic(simulation.traffic),
            "wire bytes up by worker": [traffic.up.wire_bytes for traffic in every],
            "wire bytes down by worker": [traffic.down.wire_bytes for traffic in every],
        }

    def _loss(self, model: TableModel, step: int, rank: int) -> Tensor:
        slope = table(rank, step, self.dtype)
        if (rank, step) == self.infinite_at:
            slope = slope.clone()
            slope[100] = torch.inf
        return model.loss(slope)

    def of_parameters(self, model: TableModel, simulation: laconic.Simulation) -> dict[str, Any]:
        """All workers' parameters, then the model's own and its buffer."""
        vectors = [simulation.parameters_of(rank) for rank in range(self.workers)]
        vectors += [p.detach().reshape(-1) for p in [*model.weights, model.average]]
        if self.parameters == "about":
            return {"some parameters, about": [float(f"{x:.4g}") for v in vectors for x in v[::100].tolist()]}
        if self.parameters == "float32":
            return {"parameters as float32": hashed([vector.float() for vector in vectors])}
        return {"parameters": hashed(vectors)}


def hashed(vectors: list[Tensor]) -> str:
    """16 hexadecimal digits that depend on every bit of the vectors."""
    digest = blake2b(digest_size=8)
    for vector in vectors:
        digest.update(vector.numpy().tobytes())
    return digest.hexdigest()


def of_traffic(traffic: laconic.Traffic) -> dict[str, Any]:
    """All counters but the seconds. Empty ones are left out."""
    figures = {
        "rounds": traffic.rounds,
        "aborted rounds": traffic.aborted_rounds,
        "control bytes": traffic.control_bytes,
        "setup": of_count(traffic.setup),
        "up": of_count(traffic.up),
        "down": of_count(traffic.down),
        "up by exchange": [of_count(count) for count in traffic.up_by_exchange.values()],
        "down by exchange": [of_count(count) for count in traffic.down_by_exchange.values()],
        "faults": {FAULTS[kind]: n for kind, n in sorted(traffic.faults.items())},
        "updates by staleness": [list(pair) for pair in sorted(traffic.staleness.items())],
        "updates": {UPDATES[kind]: n for kind, n in sorted(traffic.updates.items())},
    }
    return {name: value for name, value in figures.items() if value not in ({}, [])}


def of_count(count: laconic.Count) -> list[float]:
    """[messages, skips, wire bytes, local bytes, payload bits, paper's bits]; the last of them may be a logarithm."""
    return [
        count.messages, count.skips, count.wire_bytes, count.local_bytes, count.payload_bits, round(count.paper_bits, 3)
    ]  # fmt: skip
