"""Training as a user of DistributedDataParallel (DDP) does it, and the same with laconic; tasks of one rank."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import laconic
from support import methods, optimizers, small_model
from support.deadlines import PATIENCE_S

ROUNDS = 12
LATE = (2, 5)  # in these rounds rank 1 alone uses a further layer
FROZEN = (6, 9)  # in these rounds the first layer is frozen
INNER: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.05),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
}
CLIPS: dict[str, dict[str, float]] = {"": {}, "norm": {"clip_norm": 0.5}, "value": {"clip_value": 0.05}}
METHODS = ("signsgd-mv", "compskip", "ssgd-mv", "ec-sgd", "sasg", "asgd")


def warm_up(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """A rise of the learning rate from 0, as transformers has it."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda round_: min(1.0, round_ / 2))


def change(net: optimizers.Branches, rank: int, round_: int) -> None:
    """What a user changes before a round: which layers are used, and which are frozen."""
    net.uses_late = rank == 1 and LATE[0] <= round_ < LATE[1]
    if round_ in FROZEN:
        net.core[0].requires_grad_(round_ == FROZEN[1])


def by_ddp(rank: int, inner: str, clip: str, set_to_none: bool) -> list[Tensor]:
    """The parameters after every round."""
    net = optimizers.Branches()
    parallel = DistributedDataParallel(net, find_unused_parameters=True)
    optimizer, values = INNER[inner](parallel.parameters()), []
    scheduler = warm_up(optimizer)
    for round_ in range(ROUNDS):
        change(net, rank, round_)
        optimizer.zero_grad(set_to_none=set_to_none)
        small_model.loss(parallel, rank, round_).backward()
        if clip == "norm":
            nn.utils.clip_grad_norm_(parallel.parameters(), CLIPS[clip]["clip_norm"])
        elif clip == "value":
            nn.utils.clip_grad_value_(parallel.parameters(), CLIPS[clip]["clip_value"])
        optimizer.step()
        scheduler.step()
        values.append(small_model.values(net))
    return values


def by_laconic(rank: int, name: str, layout: str, inner: str, clip: str, set_to_none: bool) -> list[dict[str, Tensor]]:
    """The state of the model after every round."""
    net = optimizers.Branches()
    optimizer = INNER[inner](net.parameters())
    scheduler = warm_up(optimizer)
    opt = laconic.DistributedOptimizer(
        optimizer, methods.with_test_settings(name), model=net, layout=layout, check_every=1,
        timeout_s=PATIENCE_S, **CLIPS[clip],
    )  # fmt: skip
    states = []
    for round_ in range(ROUNDS):
        change(net, rank, round_)

        def closure(round_: int = round_) -> Tensor:
            opt.zero_grad(set_to_none=set_to_none)
            loss = small_model.loss(net, rank, round_)
            loss.backward()
            return loss.detach()

        opt.step(None if opt.serves_only else closure)
        scheduler.step()
        if opt.algorithm.is_asynchronous:
            dist.barrier()
        states.append({key: value.clone() for key, value in net.state_dict().items()})
    return states


def all_cases(rank: int, sgd: list[tuple[Any, ...]], others: list[tuple[Any, ...]]) -> list[Any]:
    """Each case of plain SGD by both, as vectors, and the other methods' states."""
    compared = []
    for layout, *case in sgd:
        states = by_laconic(rank, "sgd", layout, *case)
        compared.append((by_ddp(rank, *case), [torch.cat([v.reshape(-1) for v in state.values()]) for state in states]))
    return [compared, [by_laconic(rank, *case) for case in others]]
