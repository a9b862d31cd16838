"""What ranks do in the tests of mixed precision: autocast, GradScaler and bfloat16 parameters, one inf on one rank."""

import torch

import laconic
from support import methods, optimizers, small_model
from support.kinds_of_models import hash_of

N, STEPS = 2, 6
BAD_RANK, BAD_STEP = 1, 2
WITH_MEMORY = [
    name for name, algorithm in ((name, methods.with_test_settings(name)) for name in methods.IN_STEP)
    if algorithm.worker_slots or algorithm.server_slots
]  # fmt: skip


def floats_in(state):
    """The floating-point tensors in a state."""
    if isinstance(state, torch.Tensor):
        return [state] if state.is_floating_point() else []
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in floats_in(value)]


def remembered(opt, net):
    """What an aborted round may not change."""
    state = optimizers.state_of(opt)
    return hash_of(torch.cat([value.double().reshape(-1) for value in [small_model.values(net), *floats_in(state)]]))


def trained(rank, name, cast, scaled, parameters=torch.float32, inner=torch.optim.SGD):
    """Hashes of parameters and memories by step, the loss scale, and what else the claims are about."""
    net = small_model.net().to(parameters)
    algorithm = methods.with_test_settings(name)
    opt = optimizers.wrapped(net, name, "auto", inner(net.parameters(), lr=algorithm.test_lr))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2, enabled=scaled)

    def loss(step):
        with torch.autocast("cpu", cast or torch.bfloat16, enabled=cast is not None):
            found = small_model.loss(net, rank, step)
        return found * (torch.inf if (rank, step) == (BAD_RANK, BAD_STEP) else 1.0)

    def closure(step):
        opt.zero_grad()
        value = scaler.scale(loss(step))
        value.backward()
        return value

    seen, scales = [], []
    for step in range(STEPS):
        if algorithm.second_gradient:
            opt.step(lambda step=step: closure(step))
        else:
            closure(step)
            scaler.step(opt)
            scaler.update()
        seen.append(remembered(opt, net))
        scales.append(scaler.get_scale())
    memories = floats_in(optimizers.state_of(opt)["memories"])
    return {
        "seen": seen, "scales": scales, "values": small_model.values(net), "aborted": opt.traffic.aborted_rounds,
        "types": {tensor.dtype for tensor in memories}, "equal": algorithm.replicas_equal,
    }  # fmt: skip


def act(rank, names):
    found = {}
    for name in names:
        found[name] = {"plain": trained(rank, name, torch.bfloat16, False)}
        if not laconic.ALGORITHMS[name].second_gradient:  # GradScaler takes no closure
            found[name]["scaled"] = trained(rank, name, torch.bfloat16, True)
        found[name]["bfloat16 parameters"] = trained(rank, name, None, False, torch.bfloat16)
    found["ec-sgd"]["float16"] = trained(rank, "ec-sgd", torch.float16, True, inner=torch.optim.AdamW)
    return found
