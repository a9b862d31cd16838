"""Models in DistributedDataParallel, as the tests of `laconic.ddp` make them; run by ranks."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import laconic
import laconic.ddp
from support import small_model
from support.deadlines import PATIENCE_S
from support.optimizers import Branches

BUCKETS_OF_A_LAYER = 0.0001  # megabytes


def model(**settings: Any) -> DistributedDataParallel:
    """The small model, wrapped so that each of its two layers has a bucket."""
    return DistributedDataParallel(small_model.net(), **{"bucket_cap_mb": BUCKETS_OF_A_LAYER} | settings)


def attached(ddp: object, method: Any, **settings: Any) -> laconic.ddp.Handle:
    """A method attached with the tests' patience."""
    return laconic.ddp.attach(ddp, method, **{"timeout_s": PATIENCE_S} | settings)


def backward(ddp: nn.Module, rank: int, round_: int, factor: float = 1.0) -> None:
    """One backward pass; the loss is multiplied by `factor`."""
    (small_model.loss(ddp, rank, round_) * factor).backward()


def sgd(ddp: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum on a model's parameters."""
    return torch.optim.SGD(ddp.parameters(), lr=0.05, momentum=0.9)


def train(ddp: nn.Module, optimizer: torch.optim.Optimizer, rank: int, rounds: range) -> Tensor:
    """Train as a user does; returns the parameters."""
    for round_ in rounds:
        optimizer.zero_grad()
        backward(ddp, rank, round_)
        optimizer.step()
    return small_model.values(ddp)


def by_optimizer(rank: int, method: Any, rounds: int, **settings: Any) -> Tensor:
    """The same with `DistributedOptimizer`."""
    net = small_model.net()
    given = {"model": net, "timeout_s": PATIENCE_S, "lr": "kept"} | settings
    with laconic.DistributedOptimizer(sgd(net), method, **given) as opt:
        return train(net, opt, rank, range(rounds))


def branches(**settings: Any) -> DistributedDataParallel:
    """A model with layers that are used in some rounds, or never."""
    return DistributedDataParallel(Branches(), **settings)
