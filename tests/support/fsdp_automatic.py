""" "auto" for a sharded model; a task of one rank of four."""

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh

import laconic
from laconic.training.automatic import Chosen
from support.fsdp_tasks import attached, sgd, sharded, trained

ALLOWED = [laconic.ECSGD(), laconic.SignSGDMajorityVote()]


def automatic(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """What is chosen by measurement, and what goes on with a choice of another method in a backward pass."""
    found: dict[str, Any] = {}
    net = sharded(over)
    optimizer = sgd(net)
    handle = attached(net, "auto", over, allowed=ALLOWED)
    before = handle.automatic.chosen
    values = trained(net, optimizer, rank, range(3))
    chosen = handle.automatic.chosen
    found["measured"] = [before, chosen.algorithm.name, chosen.layout, chosen.reason, handle.traffic.rounds]
    found["made with it"] = (handle.algorithm.name, handle.driver.layout.name) == (chosen.algorithm.name, chosen.layout)
    found["counted"] = handle.traffic.control_bytes > chosen.sent_bytes > 0
    handle.detach()
    found["values"] = [values, _given(rank, over, chosen.algorithm, chosen.layout)[0]]
    for name in ("signsgd-mv", "ec-sgd"):
        found[name] = _with_choice(rank, over, name)
    return found


def _given(rank: int, over: DeviceMesh, method: Any, layout: str) -> tuple[torch.Tensor, Any, Any]:
    """The parameters after three steps, the state and the optimizer's, and the parameters after two more."""
    net = sharded(over)
    optimizer = sgd(net)
    handle = attached(net, method, over, layout=layout)
    values = trained(net, optimizer, rank, range(3))
    handle.detach()
    return values, net, optimizer


def _with_choice(rank: int, over: DeviceMesh, name: str) -> list[torch.Tensor]:
    """The parameters of a job that goes on with this method in its earliest backward pass, and of one that had it."""
    method = next(each for each in ALLOWED if each.name == name)
    net = sharded(over)
    optimizer = sgd(net)
    handle = attached(net, "auto", over, allowed=ALLOWED)
    # as on a slow link, where measurements end so
    handle.automatic.measured = lambda job: Chosen(algorithm=method, layout="rank0", reason="slow link", step_s={})
    values = [trained(net, optimizer, rank, range(3)), _given(rank, over, method, "rank0")[0]]
    assert handle.algorithm is method
    state, saved = handle.state_dict(), (net.state_dict(), optimizer.state_dict())
    again = sharded(over)
    again.load_state_dict(saved[0])
    other = sgd(again)
    other.load_state_dict(saved[1])
    loading = attached(again, "auto", over, allowed=ALLOWED)
    loading.load_state_dict(state)
    assert loading.algorithm.name == name
    handle.detach()
    values.append(trained(again, other, rank, range(3, 5)))
    loading.detach()
    straight = sharded(over)
    optimizer = sgd(straight)
    handle = attached(straight, method, over, layout="rank0")
    values.append(trained(straight, optimizer, rank, range(5)))
    handle.detach()
    return values
