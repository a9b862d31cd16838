"""A model whose gradient is whatever a test says, and the state that a round may change."""

from typing import Any

import torch
from torch import Tensor, nn

import laconic
from support.methods import with_test_settings

SHAPES = ((4, 5), (5,), (3, 5), (3,))
D = sum(torch.Size(shape).numel() for shape in SHAPES)


class Slopes(nn.Module):
    """Parameters whose loss is linear: the gradient is its slope, whatever they are."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        start = table(9, 0).split([torch.Size(shape).numel() for shape in SHAPES])
        self.tensors = nn.ParameterList(
            nn.Parameter(part.view(shape).to(dtype)) for part, shape in zip(start, SHAPES, strict=True)
        )

    def loss(self, slope: Tensor) -> Tensor:
        """A loss whose gradient is `slope` (D,)."""
        parts = slope.split([each.numel() for each in self.tensors])
        products = [(part.view_as(each).to(each) * each).sum() for part, each in zip(parts, self.tensors, strict=True)]
        return torch.stack(products).sum()


def table(rank: int, step: int) -> Tensor:
    """A slope (D,) of a rank's step, float64."""
    return torch.randn(D, generator=torch.Generator().manual_seed(1000 * rank + step), dtype=torch.float64)


def slope_with(rank: int, step: int, bad: float, at: dict[tuple[int, int], int]) -> Tensor:
    """The same with one value `bad`, for the ranks and steps in `at`, at the index that it says."""
    slope = table(rank, step)
    if (rank, step) in at:
        slope[at[rank, step]] = bad
    return slope


def simulated(
    algorithm: laconic.Algorithm | str,
    *,
    lr: float,
    workers: int = 3,
    dtype: torch.dtype = torch.float32,
    inner: type[torch.optim.Optimizer] = torch.optim.SGD,
    **options: Any,
) -> tuple[Slopes, laconic.Simulation]:
    """A simulation of the model."""
    model = Slopes(dtype)
    algorithm = with_test_settings(algorithm) if isinstance(algorithm, str) else algorithm
    optimizer = inner(model.parameters(), lr=lr)
    return model, laconic.Simulation(model, optimizer, algorithm, workers=workers, seed=3, **options)


def state_of(job: laconic.Simulation | laconic.DistributedOptimizer) -> dict[str, Tensor]:
    """Copies of all that a round may change and that this process has: parameters, memories, the server's model."""
    driver = job.driver
    workers = driver.workers if isinstance(job, laconic.Simulation) else [driver.worker] if driver.worker else []
    state = {"model": job.flat.values()}
    for worker in workers:
        state |= {f"worker {worker.rank} {name}": value for name, value in worker.me.memory.committed.items()}
        if isinstance(job, laconic.Simulation):
            state[f"model {worker.rank}"] = job.parameters_of(worker.rank)
    for server in driver.servers:
        state |= {f"server {server.index} {name}": value for name, value in server.view.memory.committed.items()}
    if job.server_model is not None:
        state["server's model"] = job.server_model.flat.values()
        for number, of in enumerate(job.server_model.optimizer.state.values()):
            state |= {f"server's {name} {number}": torch.as_tensor(value) for name, value in of.items()}
    return {name: value.detach().clone() for name, value in state.items()}


def not_finite(state: dict[str, Tensor]) -> list[str]:
    """The names of what has inf or NaN."""
    return [name for name, value in state.items() if not bool(torch.isfinite(value.double()).all())]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """The names of what differs."""
    same = {name for name in before.keys() & after.keys() if torch.equal(before[name], after[name])}
    return sorted((before.keys() | after.keys()) - same)
