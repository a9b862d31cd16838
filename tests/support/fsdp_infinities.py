"""What inf, and numbers near it, do to a method attached to a sharded model; each is a task of one rank of four."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from laconic.ddp.carriable import why_not
from support import small_model
from support.fsdp_tasks import Net, attached, full_values, sgd, sharded
from support.methods import IN_STEP, with_test_settings


def _with_memory(*, by_step: bool) -> list[str]:
    """Methods that remember something, and are exchanged by the optimizer's step, or by a backward pass."""
    found = []
    for name in IN_STEP:
        method = with_test_settings(name)
        refused = method.server_steps or method.second_gradient
        if not refused and (method.worker_slots or method.server_slots):
            found += [name] * (bool(why_not(method, knows_lr=True)) == by_step)
    return found


BY_BACKWARD, BY_STEP = _with_memory(by_step=False), _with_memory(by_step=True)
PRECISIONS = {name: (torch.bfloat16, torch.float16)[place % 2] for place, name in enumerate(BY_BACKWARD + BY_STEP)}


def _inputs_of_inf(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The methods, each in full precision and in a shorter one."""
    for name in names:
        yield name, {}
        policy = MixedPrecisionPolicy(param_dtype=PRECISIONS[name], reduce_dtype=PRECISIONS[name])
        yield f"{name}, {PRECISIONS[name]}", {"mp_policy": policy}


def _loss_of(net: Net, rank: int, round_: int) -> Tensor:
    """A loss that has an inf gradient on one rank in a round, in the only element of a parameter of shard 0."""
    loss = small_model.loss(net, rank, round_)
    return loss + net.factor.sum() * torch.inf if (rank, round_) == (3, 1) else loss


def one_inf_in_one_shard(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """Four steps; in the second one rank's gradient has an inf. Of methods that the backward pass exchanges."""
    found = {}
    for case, policy in _inputs_of_inf(BY_BACKWARD):
        net = sharded(over, **policy)
        optimizer = sgd(net)
        method = with_test_settings(case.split(",")[0])
        handle = attached(net, method, over, optimizer=optimizer if method.reads_lr else None)
        seen = []
        for round_ in range(4):
            optimizer.zero_grad()
            before = copy.deepcopy(handle.state_dict()["driver"]["worker"]["memory"])
            _loss_of(net, rank, round_).backward()
            after = handle.state_dict()["driver"]["worker"]["memory"]
            gradients = [p.grad._local_tensor for p in net.parameters()]
            seen.append({
                "aborted": handle.aborted, "all NaN": all(bool(each.isnan().all()) for each in gradients),
                "same memory": str(before) == str(after),
            })  # fmt: skip
            if not handle.aborted or method.reads_lr:
                optimizer.step()
        found[case] = {"seen": seen, "values": full_values(net), "count": handle.traffic.aborted_rounds}
        handle.detach()
    return found


def one_inf_by_step(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """The same of methods that the optimizer's step exchanges."""
    found = {}
    for case, policy in (*_inputs_of_inf(BY_STEP), ("sgd", {})):
        name = case.split(",")[0]
        settings: dict[str, Any] = {"diloco": {"local_steps": 2}, "sgd": {"local_steps": 2, "clip_norm": 1.0}}.get(
            name, {}
        )
        net = sharded(over, **policy)
        optimizer = sgd(net)
        handle = attached(net, with_test_settings(name), over, optimizer=optimizer, **settings)
        for round_ in range(4):
            optimizer.zero_grad()
            _loss_of(net, rank, round_).backward()
            optimizer.step()
        found[case] = {"values": full_values(net), "count": handle.traffic.aborted_rounds}
        handle.detach()
    return found


def one_overflow_by_step(rank: int, over: DeviceMesh) -> dict[str, Any]:
    """A finite gradient of one rank whose square is not: what an Adam keeps of it, and its steps."""
    found = {}
    for name, settings in {"diloco": {"local_steps": 2}, "ssgd-mv": {}, "sgd": {"local_steps": 3}}.items():
        net = sharded(over)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        if name == "ssgd-mv":
            optimizer = sgd(net)
        handle = attached(net, with_test_settings(name), over, optimizer=optimizer, **settings)
        for round_ in range(6):
            optimizer.zero_grad()
            loss = small_model.loss(net, rank, round_)
            if (rank, round_) == (3, 1):
                loss = loss + net.factor.sum() * 1e30
            loss.backward()
            optimizer.step()
        states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, DTensor)]
        found[name] = {
            "values": full_values(net), "finite": all(bool(each.to_local().isfinite().all()) for each in states),
            "count": handle.traffic.aborted_rounds,
        }  # fmt: skip
        handle.detach()
    return found
