"""Nodes that come and go under a sharded model: a rank that dies, and states for other numbers of nodes."""

import copy
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import distribute_tensor

import laconic
from laconic.ddp.carriable import why_not
from support.deadlines import DEATH_TIMEOUT_S
from support.fsdp_tasks import N_SHARDS, attached, mesh, sgd, sharded, trained
from support.methods import with_test_settings
from support.moments import Moments

DOOMED, N_ROUNDS = 3, 40  # rounds enough to die in


def with_one_that_dies(rank: int, name: str, share: float) -> str:
    """Train until a rank dies; `share` is when it does, of a step's calls."""
    over, method = mesh(), with_test_settings(name)
    net = sharded(over)
    optimizer = sgd(net)
    given = {"optimizer": optimizer} if why_not(method) else {}
    attached(net, method, over, timeout_s=DEATH_TIMEOUT_S, **given)
    trained(net, optimizer, rank, range(2))
    step = partial(trained, net, optimizer, rank)
    if rank == DOOMED:
        moments = Moments()
        n_calls = moments.count(lambda: step(range(2, 3)))
        moments.die_after(1 + int(share * n_calls))
    else:
        step(range(2, 3))
    step(range(3, N_ROUNDS))
    return "went on"


def nodes_of(n_nodes: int) -> DeviceMesh:
    """A mesh of so many nodes."""
    return init_device_mesh("cpu", (n_nodes, N_SHARDS), mesh_dim_names=("replicate", "shard"))


def gathered(rank: int, names: list[str]) -> dict[str, tuple[Any, Any, Tensor]]:
    """Train for three rounds; by method, the model, the gathered state, and what this shard's residuals add up to."""
    over = nodes_of(dist.get_world_size() // N_SHARDS)
    found = {}
    for name in names:
        net, handle, optimizer = _begun(name, over)
        trained(net, optimizer, rank, range(3))
        state = handle.gather_state()
        model = {key: value.full_tensor() for key, value in net.state_dict().items()}
        found[name] = copy.deepcopy((model, state, _sum_of_residuals(handle, over)))
        handle.detach()
    return found


def gone_on(rank: int, found: list[dict[str, tuple[Any, Any, Tensor]]]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Go on from a state of other nodes; by method, the residuals' sum then and now, and the parameters."""
    over = nodes_of(dist.get_world_size() // N_SHARDS)
    ended = {}
    for name, (model, state, residuals) in found[rank % N_SHARDS].items():
        net, handle, optimizer = _begun(name, over, model)
        handle.load_state_dict(state)
        loaded = _sum_of_residuals(handle, over)
        ended[name] = (residuals, loaded, trained(net, optimizer, rank, range(3, 6)))
        handle.detach()
    return ended


def _begun(name: str, over: DeviceMesh, model: Any = None) -> tuple[Any, laconic.fsdp.Handle, torch.optim.Optimizer]:
    method = with_test_settings(name)
    net = sharded(over)
    if model is not None:
        with torch.no_grad():
            for key, parameter in net.named_parameters():
                full = distribute_tensor(model[key], over["shard"], parameter.placements)
                parameter.copy_(full)
    optimizer = sgd(net)
    given = {"optimizer": optimizer} if why_not(method) else {}
    return net, attached(net, method, over, **given), optimizer


def _sum_of_residuals(handle: laconic.fsdp.Handle, over: DeviceMesh) -> Tensor:
    """The sum of the residuals of all nodes, in this shard."""
    state = handle.state_dict()
    by_parameter = state["driver"]["worker"]["memory"].get("residual")  # none yet of a node that has just come
    parts = [part.reshape(-1) for each in (by_parameter or {}).values() for part in each.values()]
    total = torch.cat(parts).double() if parts else torch.zeros(sum(state["parameters"].values()), dtype=torch.double)
    dist.all_reduce(total, group=over["replicate"].get_group())
    return total
