"""What several ranks are refused; a task of one rank."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn.parallel import DistributedDataParallel

import laconic
import laconic.ddp
from support import ddp_models, small_model

BY_RANKS = {
    "no wrapper": "no DistributedDataParallel wraps this Sequential",
    "another hook": "has a communication hook already (fp16_compress_hook)",
    "a hook of torch's": "has a communication hook already (one of torch's own)",
    "attached twice": "a method is attached already",
    "sparse": "with sparse gradients",
    "delayed": "delay_all_reduce_named_params averages some gradients past the hook",
    "in an optimizer": "a DistributedOptimizer trains this module",
    "other seeds": "seed=",
    "half an optimizer": "it does not have '2.weight' (2 of 4 parameters that are trained)",
    "found": "3 found",
    "join": "votes in signsgd-mv",
    "shape": "as it was",
    "nothing trained": "none of its parameters is trained",
    "one by its optimizer": "exchange in the backward pass=True",
    "detached handle": "detached, then SignSGDMajorityVote",
}


def refusals(rank: int, ending: str = "") -> dict[str, str]:
    """What each mistake is answered with; or a rank that ends in the middle of training."""
    if ending == "lost":
        _lose(rank)
    return {what: _answer(make, rank) for what, make in _MISTAKES.items()}


def _lose(rank: int) -> None:
    ddp = ddp_models.model()
    ddp_models.attached(ddp, laconic.SignSGDMajorityVote())
    optimizer = ddp_models.sgd(ddp)
    ddp_models.train(ddp, optimizer, rank, range(4 - 2 * rank))
    raise RuntimeError("ends by itself")


def _answer(make: Callable[[int], Any], rank: int) -> str:
    try:
        return str(make(rank))
    except (ValueError, RuntimeError, laconic.LaconicError) as error:
        return str(error)


def _another_hook(rank: int) -> None:
    ddp = ddp_models.model()
    ddp.register_comm_hook(None, default_hooks.fp16_compress_hook)
    ddp_models.attached(ddp, laconic.SGD())


def _torchs_hook(rank: int) -> None:
    ddp = ddp_models.model()
    ddp._register_builtin_comm_hook(dist.BuiltinCommHookType.ALLREDUCE)
    ddp_models.attached(ddp, laconic.SGD())


def _attached_twice(rank: int) -> None:
    ddp = ddp_models.model()
    handle = ddp_models.attached(ddp, laconic.SGD())
    try:
        ddp_models.attached(ddp, laconic.SGD())
    finally:
        handle.detach()


def _sparse(rank: int) -> None:
    net = nn.Sequential(nn.Embedding(4, 3, sparse=True), nn.Linear(3, 2))
    ddp_models.attached(DistributedDataParallel(net), laconic.SGD())


def _delayed(rank: int) -> None:
    net = small_model.net()
    delayed = [("0.weight", net[0].weight)]
    ddp = DistributedDataParallel(
        net,
        delay_all_reduce_named_params=delayed,
        param_to_hook_all_reduce=net[2].weight,  # type: ignore[arg-type]
    )
    ddp_models.attached(ddp, laconic.SGD())


def _in_an_optimizer(rank: int) -> None:
    net = small_model.net()
    with laconic.DistributedOptimizer(ddp_models.sgd(net), laconic.SGD(), model=net):
        DistributedDataParallel(net)


def _other_seeds(rank: int) -> None:
    ddp_models.attached(ddp_models.model(), laconic.SGD(), seed=rank)


def _half(rank: int) -> None:
    ddp = ddp_models.model()
    ddp_models.attached(ddp, laconic.SGD(), optimizer=torch.optim.SGD(ddp.module[0].parameters(), lr=0.1))


class Holder:
    """Stands for a trainer, or for what a framework returns."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


def _found(rank: int) -> str:
    ddp = ddp_models.model()
    given = [ddp.module, Holder(model_wrapped=ddp, model=ddp.module), Holder(strategy=Holder(model=ddp))]
    for thing in given:
        handle = ddp_models.attached(thing, laconic.SGD())
        assert handle.model is ddp.module
        handle.detach()
    return f"{len(given)} found"


def _join(rank: int) -> None:
    ddp = ddp_models.model()
    ddp_models.attached(ddp, laconic.SignSGDMajorityVote())
    with ddp.join():
        ddp_models.backward(ddp, rank, 0)


def _shape(rank: int) -> str:
    """A hook of the user's around ours sees a future of one tensor in the bucket's shape and type."""
    ddp, seen = ddp_models.model(), []
    state, hook = laconic.ddp.hook(laconic.SGD())

    def around(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        before = bucket.buffer()
        future = hook(state, bucket)

        def look(done: torch.futures.Future[torch.Tensor]) -> torch.Tensor:
            value = done.value()
            seen.append((value.shape, value.dtype, value.device) == (before.shape, before.dtype, before.device))
            return value

        return future.then(look)

    ddp.register_comm_hook(state, around)
    ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(2))
    assert state.handle is not None
    state.handle.detach()
    return "as it was" if seen and all(seen) else "otherwise"


def _nothing_trained(rank: int) -> None:
    ddp = ddp_models.model()
    ddp_models.attached(ddp.requires_grad_(False), laconic.SGD())


def _one_by_its_optimizer(rank: int) -> None:
    ddp = ddp_models.model()
    given = {"optimizer": ddp_models.sgd(ddp), "overlap": False} if rank else {}
    ddp_models.attached(ddp, laconic.SGD(), **given)


def _detached_handle(rank: int) -> str:
    """A handle that is detached again does not detach the method that was attached meanwhile."""
    ddp = ddp_models.model()
    before = ddp_models.attached(ddp, laconic.SGD())
    before.detach()
    now = ddp_models.attached(ddp, laconic.SignSGDMajorityVote())
    before.detach()
    ddp_models.train(ddp, ddp_models.sgd(ddp), rank, range(2))
    assert now.traffic.rounds == 2
    shown = "detached, then " * ("detached" in repr(before)) + type(now.algorithm).__name__
    now.detach()
    return shown


_MISTAKES: dict[str, Callable[[int], Any]] = {
    "no wrapper": lambda rank: ddp_models.attached(small_model.net(), laconic.SGD()),
    "another hook": _another_hook, "a hook of torch's": _torchs_hook, "attached twice": _attached_twice,
    "sparse": _sparse, "delayed": _delayed, "in an optimizer": _in_an_optimizer, "other seeds": _other_seeds,
    "half an optimizer": _half, "found": _found, "shape": _shape, "join": _join, "nothing trained": _nothing_trained,
    "one by its optimizer": _one_by_its_optimizer, "detached handle": _detached_handle,
}  # fmt: skip
