"""What `laconic.fsdp.attach` refuses; a task of one rank of four."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

import laconic
import laconic.fsdp
from support import small_model
from support.fsdp_tasks import Net, attached, sgd, sharded
from support.methods import with_test_settings

MESSAGES = {
    "plain model": "no fully_shard was called with this Sequential",
    "a layer alone": "'0' is sharded, and the Sequential around it is not: call fully_shard on the model too",
    "a part": "it is sharded in another sharded module",
    "a part, after a pass": "trained apart on each node; attach to that one",
    "mesh of one dimension": "it has 1 dimension, and two are needed",
    "no mesh": "mesh=None must be a torch.distributed.device_mesh.DeviceMesh",
    "sharded over all": "is sharded over all 4 ranks, so that no other rank has the same shard",
    "sharded and replicated": "averages between nodes itself; give it mesh[\"shard\"] alone",
    "ignored": "'factor' is trained and not sharded",
    "another hook": "FSDP has an all-reduce hook already (_another)",
    "attached twice": "a method is attached already",
    "no hook in torch": f"FSDP of torch {torch.__version__} has no set_all_reduce_hook as laconic knows it",
    "server": "the nodes' own optimizers do; take sgd",
    "two points": "lasg does not go with fully_shard: it evaluates each mini-batch at two points",
    "two points, sparse": "is handed one gradient; take lag, which skips by one, or sparse",
    "asynchronous": "asgd does not go with fully_shard: its server takes each gradient as it arrives",
    "change": "cannot carry diloco: it sends the change that local steps made; pass optimizer=",
    "learning rate": "cannot carry dist-ef: it reads the learning rate; pass optimizer=",
    "local steps": "local_steps=3 are steps of an optimizer; pass optimizer=",
    "dedicated": 'layout="dedicated": its last rank trains nothing',
    "other seeds": "seed=",
    "half an optimizer": "it does not have 'factor'",
    "few rows": "no parameter has rows for all 2 shards",
    "nothing trained": "none of its parameters is trained",
    "one node": "exchanges nothing",
    "thawed": "a parameter was frozen when the method was attached",
    "in slices": "overlap=True: powersgd looks at the full vector",
    "another word": "method='fastest' must be an algorithm such as laconic.ECSGD(), or \"auto\"",
    "auto, of a method that needs more": "cannot carry ssgd-mv",
    "a method, and others": "allowed: the method is given",
    "no model": "model=int must be a torch.nn.Module",
}  # fmt: skip


def refusals(over: DeviceMesh) -> dict[str, str]:
    """What each mistake is answered with."""
    return {what: _answer(make, over) for what, make in _MISTAKES.items()}


def _answer(make: Callable[[DeviceMesh], Any], over: DeviceMesh) -> str:
    try:
        return str(make(over))
    except (TypeError, ValueError, RuntimeError, laconic.LaconicError) as error:
        return str(error)


def _a_layer_alone(over: DeviceMesh) -> None:
    net = small_model.net()
    fully_shard(net[0], mesh=over["shard"])
    attached(net, laconic.SGD(), over)


def _part(over: DeviceMesh, *, is_known: bool) -> None:
    net = sharded(over)
    if is_known:
        small_model.loss(net, dist.get_rank(), 0)
    handle = attached(net.layers[0], laconic.SGD(), over)
    try:
        small_model.loss(net, dist.get_rank(), 0).backward()
    finally:
        handle.detach()


def _over(shards: Callable[[DeviceMesh], DeviceMesh], *, ignores: bool = False) -> Callable[[DeviceMesh], Any]:
    def make(over: DeviceMesh) -> Any:
        net = Net()
        fully_shard(net, mesh=shards(over), ignored_params={net.factor} if ignores else None)
        return attached(net, laconic.SGD(), over)

    return make


def _another(reduced: torch.Tensor) -> None:
    """Do nothing with what was reduced."""


def _another_hook(over: DeviceMesh) -> None:
    net = sharded(over)
    net.set_all_reduce_hook(_another)
    attached(net, laconic.SGD(), over)


def _attached_twice(over: DeviceMesh) -> None:
    net = sharded(over)
    handle = attached(net, laconic.SGD(), over)
    try:
        attached(net, laconic.SGD(), over)
    finally:
        handle.detach()


def _no_hook_in_torch(over: DeviceMesh) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(FSDPModule, "set_all_reduce_hook")
        attached(sharded(over), laconic.SGD(), over)


def _half_an_optimizer(over: DeviceMesh) -> None:
    net = sharded(over)
    attached(net, laconic.SGD(), over, optimizer=sgd(net.layers))


def _few_rows(over: DeviceMesh) -> None:
    net = nn.Linear(4, 1)
    fully_shard(net, mesh=over["shard"])
    attached(net, laconic.SGD(), over)


def _nothing_trained(over: DeviceMesh) -> None:
    net = sharded(over)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    attached(net, laconic.SGD(), over)


def _one_node(over: DeviceMesh) -> laconic.fsdp.Handle:
    one = init_device_mesh("cpu", (1, 4), mesh_dim_names=("replicate", "shard"))
    net = Net()
    fully_shard(net, mesh=one["shard"])
    handle = attached(net, laconic.SGD(), one)
    small_model.loss(net, dist.get_rank(), 0).backward()
    return handle


def _thawed(over: DeviceMesh) -> None:
    net = Net()
    net.factor.requires_grad_(False)
    fully_shard(net, mesh=over["shard"])
    handle = attached(net, laconic.SGD(), over)
    net.factor.requires_grad_(True)
    try:
        small_model.loss(net, dist.get_rank(), 0).backward()
    finally:
        handle.detach()


_MISTAKES: dict[str, Callable[[DeviceMesh], Any]] = {
    "plain model": lambda over: attached(small_model.net(), laconic.SGD(), over),
    "a layer alone": _a_layer_alone,
    "a part": lambda over: _part(over, is_known=False),
    "a part, after a pass": lambda over: _part(over, is_known=True),
    "mesh of one dimension": lambda over: attached(sharded(over), laconic.SGD(), over["shard"]),
    "no mesh": lambda over: attached(sharded(over), laconic.SGD(), None),
    "sharded over all": _over(lambda over: init_device_mesh("cpu", (4,))),
    "sharded and replicated": _over(lambda over: over),
    "ignored": _over(lambda over: over["shard"], ignores=True),
    "another hook": _another_hook,
    "attached twice": _attached_twice,
    "no hook in torch": _no_hook_in_torch,
    "server": lambda over: attached(sharded(over), with_test_settings("sgd-server"), over),
    "two points": lambda over: attached(sharded(over), with_test_settings("lasg"), over),
    "two points, sparse": lambda over: attached(sharded(over), with_test_settings("sasg"), over),
    "asynchronous": lambda over: attached(sharded(over), with_test_settings("asgd"), over),
    "change": lambda over: attached(sharded(over), with_test_settings("diloco"), over),
    "local steps": lambda over: attached(sharded(over), laconic.SGD(), over, local_steps=3),
    "learning rate": lambda over: attached(sharded(over), with_test_settings("dist-ef"), over),
    "dedicated": lambda over: attached(sharded(over), laconic.SGD(), over, layout="dedicated"),
    "other seeds": lambda over: attached(sharded(over), laconic.SGD(), over, seed=dist.get_rank()),
    "half an optimizer": _half_an_optimizer,
    "few rows": _few_rows,
    "nothing trained": _nothing_trained,
    "one node": _one_node,
    "thawed": _thawed,
    "in slices": lambda over: attached(sharded(over), laconic.PowerSGD(), over, overlap=True),
    "another word": lambda over: attached(sharded(over), "fastest", over),
    "auto, of a method that needs more": lambda over: attached(sharded(over), "auto", over, allowed=[laconic.SSGDMV()]),
    "a method, and others": lambda over: attached(sharded(over), laconic.SGD(), over, allowed=[laconic.SGD()]),
    "no model": lambda over: attached(3, laconic.SGD(), over),
}  # fmt: skip
