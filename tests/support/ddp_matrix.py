"""Cells of a matrix: a method, a number of buckets, a way to train; by DistributedDataParallel and by the optimizer."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import laconic
import laconic.ddp
from laconic.random_keys import make_key
from support import methods
from support.deadlines import PATIENCE_S

BY_HOOK = ("sgd", "csgd", "csgd-ring", "ec-sgd", "signsgd-mv", "dropsign", "compskip", "powersgd")
BY_STEP = ("dist-ef", "ssgd-mv", "sparse")
MODES = ("plain", "no_sync", "autocast", "unused", "compiled", "groups")
ROUNDS = 4
WIDTH, DEPTH = 8, 7
_LAYER_BYTES = 4 * WIDTH * (WIDTH + 1)
CAPS = {1: 25 * 2**20, 2: 4 * _LAYER_BYTES, 7: _LAYER_BYTES}  # by number of buckets


@dataclass(frozen=True)
class Cell:
    """One cell."""

    method: str
    buckets: int
    mode: str


@dataclass(frozen=True)
class Outcome:
    """What a rank has after some rounds."""

    values: Tensor
    """All parameters."""
    traffic: laconic.Traffic
    slices: int = 1


class Net(nn.Module):
    """Seven layers, and one more that only rank 1 uses in some rounds, and one that nobody uses."""

    def __init__(self, extra: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH + 2 * extra))
        self.uses_extra = False
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs
        for layer in self.layers[: DEPTH + self.uses_extra]:
            hidden = torch.tanh(layer(hidden))
        return hidden


@functools.cache
def batch(rank: int, number: int) -> tuple[Tensor, Tensor]:
    """The inputs and targets of a rank's mini-batch. Nobody changes them."""
    generator = torch.Generator().manual_seed(make_key(3, "data", rank, number, "batch") >> 1)
    return torch.randn(4, WIDTH, generator=generator), torch.randn(4, WIDTH, generator=generator)


def backward(model: nn.Module, rank: int, number: int, mode: str) -> None:
    """One backward pass."""
    inputs, targets = batch(rank, number)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        loss = ((model(inputs) - targets) ** 2).mean()
    loss.backward()


def optimizer_of(net: Net, mode: str, lr: float) -> torch.optim.Optimizer:
    """SGD with momentum, in two groups with rates of their own if the mode says so."""
    if mode != "groups":
        return torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    groups = [{"params": net.layers[:3].parameters(), "lr": lr}, {"params": net.layers[3:].parameters(), "lr": lr / 2}]
    return torch.optim.SGD(groups, momentum=0.9)


def steps(model: nn.Module, net: Net, optimizer: Any, rank: int, mode: str) -> None:
    """Train as a user does; `model` is what is called, and `net` what it wraps."""
    passes = 3 if mode == "no_sync" else 1
    for round_ in range(ROUNDS):
        net.uses_extra = mode == "unused" and rank == 1 and round_ in (1, 2)
        optimizer.zero_grad()
        for number in range(passes):
            waits = number < passes - 1 and isinstance(model, DistributedDataParallel)
            with model.no_sync() if waits else contextlib.nullcontext():  # type: ignore[operator]
                backward(model, rank, passes * round_ + number, mode)
        optimizer.step()


def by_optimizer(rank: int, cell: Cell) -> Outcome:
    """Train with `DistributedOptimizer`."""
    method = methods.with_test_settings(cell.method)
    net = Net(cell.mode == "unused")
    with laconic.DistributedOptimizer(
        optimizer_of(net, cell.mode, method.test_lr), method, model=net, timeout_s=PATIENCE_S, lr="kept"
    ) as opt:
        steps(net, net, opt, rank, cell.mode)
        return Outcome(values(net), opt.traffic)


def by_ddp(rank: int, cell: Cell) -> Outcome:
    """Train with the method attached to a model in DistributedDataParallel, which other cells have used before."""
    method = methods.with_test_settings(cell.method)
    model, net = wrapped(cell.buckets, cell.mode)
    net.load_state_dict(Net(cell.mode == "unused").state_dict())
    optimizer = optimizer_of(net, cell.mode, method.test_lr)
    optimizer.zero_grad()
    given = {"optimizer": optimizer} if cell.method in BY_STEP else {}
    handle = laconic.ddp.attach(model, method, timeout_s=PATIENCE_S, **given)
    steps(model, net, optimizer, rank, cell.mode)
    outcome = Outcome(values(net), handle.traffic, handle.n_slices)
    handle.detach()
    return outcome


@functools.cache
def wrapped(buckets: int, mode: str) -> tuple[Any, Net]:
    """A model in DistributedDataParallel, compiled if the mode says so, and the module in it."""
    net = Net(mode == "unused")
    ddp = DistributedDataParallel(
        net,
        bucket_cap_mb=CAPS[buckets] / 2**20,
        find_unused_parameters=mode == "unused",  # type: ignore[arg-type]
    )
    if mode != "compiled":
        return ddp, net
    torch._dynamo.config.optimize_ddp = buckets == 1  # it refuses buckets below a megabyte
    compiled = torch.compile(ddp, backend="eager")
    compiled(batch(0, 0)[0])
    return compiled, net


def values(net: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in net.parameters()])


def pairwise_cells() -> Iterator[Cell]:
    """Yield cells with every pair of a method, a number of buckets and a mode."""
    for row, method in enumerate(BY_HOOK + BY_STEP):
        for column, mode in enumerate(MODES):
            yield Cell(method, (1, 2, 7)[(row + column) % 3], mode)


def all_cells() -> Iterator[Cell]:
    """Yield the whole matrix."""
    for method in BY_HOOK + BY_STEP:
        for buckets in CAPS:
            for mode in MODES:
                yield Cell(method, buckets, mode)


def train(rank: int, cells: list[Cell]) -> list[tuple[Outcome, Outcome]]:
    """Each cell by both, as a task of one rank; what the optimizer does is the same for any number of buckets."""
    known = functools.cache(lambda method, mode: by_optimizer(rank, Cell(method, 1, mode)))
    return [(known(cell.method, cell.mode), by_ddp(rank, cell)) for cell in cells]
