"""What ranks on nodes do, and what one worker a node would do with the mean of their gradients."""

import copy
import os
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import laconic
from laconic.ddp.carriable import why_not
from laconic.drivers.distributed import nodes, shared_memory
from laconic.random_keys import make_key
from support import ddp_models, small_model
from support.deadlines import PATIENCE_S
from support.methods import with_test_settings

N_NODES, N_A_NODE = 2, 2


def gradient(rank: int, round_: int) -> Tensor:
    """A rank's gradient in a round, (d,)."""
    generator = torch.Generator().manual_seed(make_key(5, "data", rank, round_, "gradient") >> 1)
    return torch.randn(small_model.N_PARAMETERS, generator=generator)


def mean_gradient(node: int, round_: int) -> Tensor:
    """The mean over a node's ranks, (d,)."""
    ranks = range(node * N_A_NODE, (node + 1) * N_A_NODE)
    return torch.stack([gradient(rank, round_) / N_A_NODE for rank in ranks]).sum(0)


def set_gradients(net: nn.Module, vector: Tensor) -> None:
    """Give the parameters of a model the gradients in a vector (d,)."""
    sizes = [parameter.numel() for parameter in net.parameters()]
    for parameter, part in zip(net.parameters(), vector.split(sizes), strict=True):
        parameter.grad = part.clone().view_as(parameter)


def inner_of(net: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)


def over_nodes(net: nn.Module, method: laconic.Algorithm, **settings: Any) -> laconic.DistributedOptimizer:
    """An optimizer over nodes."""
    given = {"nodes": N_NODES, "timeout_s": PATIENCE_S, "lr": "kept", "model": net} | settings
    return laconic.DistributedOptimizer(inner_of(net), method, **given)


def trained(rank: int, name: str, rounds: int, **settings: Any) -> tuple[Tensor, laconic.Traffic]:
    """The parameters and the traffic of a rank that trains over nodes."""
    net, seen = small_model.net(), []
    with over_nodes(net, with_test_settings(name), **settings) as opt:
        laconic.observe(opt, seen.append)
        for round_ in range(rounds):
            set_gradients(net, gradient(rank, round_))
            opt.step()
        assert sum((stats.inside for stats in seen), laconic.Count()) == opt.traffic.inside, name
        return small_model.values(net), opt.traffic


def trained_without_shared_memory(rank: int, name: str, rounds: int, **settings: Any) -> tuple[Tensor, laconic.Traffic]:
    """The same where the other rank of a node is on another host, as far as it can see."""
    folder, shared_memory.FOLDER = shared_memory.FOLDER, "/nowhere" if rank % 2 else shared_memory.FOLDER
    try:
        return trained(rank, name, rounds, **settings)
    finally:
        shared_memory.FOLDER = folder


def trained_in_packets(rank: int, name: str, rounds: int, **settings: Any) -> tuple[Tensor, laconic.Traffic]:
    """The same as `trained`, where results of few bits are handed over as they came, however short they are."""
    before, nodes.PARTS_BYTES = nodes.PARTS_BYTES, 0
    try:
        if settings.pop("without_memory", False):
            return trained_without_shared_memory(rank, name, rounds, **settings)
        return trained(rank, name, rounds, **settings)
    finally:
        nodes.PARTS_BYTES = before


def expected(name: str, rounds: int, **settings: Any) -> tuple[Tensor, laconic.Traffic]:
    """The same of one worker a node, which has the mean gradient."""
    net = small_model.net()
    simulation = laconic.Simulation(
        net, inner_of(net), with_test_settings(name), workers=N_NODES, lr="kept", frames="encoded", **settings
    )
    for round_ in range(rounds):
        simulation.step(partial(_loss, net, round_))
    return small_model.values(net), simulation.traffic


def _loss(net: nn.Module, round_: int, node: int) -> Tensor:
    sizes = [parameter.numel() for parameter in net.parameters()]
    parts = mean_gradient(node, round_).split(sizes)
    terms = [(p * part.view_as(p)).sum() for p, part in zip(net.parameters(), parts, strict=True)]
    return torch.stack(terms).sum()


def with_one_inf(rank: int) -> list[tuple[Tensor, int]]:
    """The parameters after each round, and how many were aborted: a rank that leads no node meets inf in the second."""
    net, seen = small_model.net(), []
    with over_nodes(net, laconic.ECSGD()) as opt:
        for round_ in range(3):
            set_gradients(net, gradient(rank, round_))
            if (rank, round_) == (3, 1):
                next(net.parameters()).grad[0, 0] = torch.inf
            opt.step()
            seen.append((small_model.values(net), opt.traffic.aborted_rounds))
    return seen


def with_unlike_use(rank: int) -> list[Tensor]:
    """Gradients of three rounds, where one rank of a node has none of the last layer, then all ranks of a node."""
    net, seen = small_model.net(), []
    with over_nodes(net, laconic.SGD()) as opt:
        for round_, lacking in enumerate(([], [1], [0, 1])):
            set_gradients(net, gradient(rank, round_))
            if rank in lacking:
                net[2].bias.grad = None
            opt.step()
            seen.append(net[2].bias.grad.clone())
    return seen


def saved_and_loaded(rank: int) -> dict[str, list[Tensor]]:
    """The parameters of an undisturbed run, and of runs from the state of each rank, and of all, after three rounds."""

    def train(net: nn.Module, opt: laconic.DistributedOptimizer, rounds: range) -> Tensor:
        for round_ in rounds:
            set_gradients(net, gradient(rank, round_))
            opt.step()
        return small_model.values(net)

    net = small_model.net()
    with over_nodes(net, laconic.ECSGD()) as opt:
        train(net, opt, range(3))
        model, own, gathered = map(copy.deepcopy, (net.state_dict(), opt.state_dict(), opt.gather_state()))
        undisturbed = train(net, opt, range(3, 6))
    found = [undisturbed]
    for state, settings in ((own, {}), (gathered, {}), (gathered, {"nodes": 1})):
        net.load_state_dict(model)
        with over_nodes(net, laconic.ECSGD(), **settings) as opt:
            opt.load_state_dict(copy.deepcopy(state))
            found.append(train(net, opt, range(3, 6)))
    return found


def on_one_host(rank: int) -> tuple[str, int]:
    """What ranks of one host are with nodes="auto"."""
    net = small_model.net()
    with over_nodes(net, laconic.ECSGD(), nodes="auto") as opt:
        set_gradients(net, gradient(rank, 0))
        opt.step()
        return repr(opt), opt.total_traffic().up.wire_bytes


def refused(rank: int) -> list[str]:
    """What ranks are told that cannot form the nodes they ask for."""
    errors = []
    cases = [
        (laconic.SGD(), {"nodes": 3}),
        (laconic.DSGD(), {}),
        (laconic.ASGD(), {}),
        (laconic.SGD(), {"layout": "dedicated"}),
        (laconic.SGD(), {"nodes": (None, "auto")[rank % 2]}),
    ]
    for method, settings in cases:
        try:
            over_nodes(small_model.net(), method, **settings)
        except ValueError as error:
            errors.append(str(error))
    return errors


def attached(rank: int) -> dict[str, dict[str, Tensor]]:
    """The parameters after training by a hook and by the optimizer's step, for each method, with an inf in a round."""
    found: dict[str, dict[str, Tensor]] = {}
    nodes.PARTS_BYTES = 0  # answers of few bits go from packets into gradients
    for method in map(with_test_settings, ("sgd", "ec-sgd", "signsgd-mv", "sparse")):
        of_method = found[method.name] = {}
        for carried in ("hook", "step"):
            ddp = ddp_models.model()
            optimizer = ddp_models.sgd(ddp)
            given = {} if carried == "hook" and not why_not(method) else {"optimizer": optimizer, "overlap": False}
            handle = ddp_models.attached(ddp, method, nodes=N_NODES, **given)
            for round_ in range(4):
                optimizer.zero_grad()
                ddp_models.backward(ddp, rank, round_, torch.inf if (rank, round_) == (3, 1) else 1.0)
                if not handle.aborted or given:
                    optimizer.step()
            of_method[carried] = small_model.values(ddp)
            of_method[f"bytes, {carried}"] = torch.tensor([handle.total_traffic().up.wire_bytes, handle.traffic.rounds])
            handle.detach()
    return found


def after_a_loss(rank: int) -> str:
    """What a rank is told after one that leads no node has ended in the middle of training."""
    net = small_model.net()
    opt = over_nodes(net, laconic.ECSGD())
    for round_ in range(3):
        if (rank, round_) == (3, 1):
            os._exit(1)
        set_gradients(net, gradient(rank, round_))
        try:
            opt.step()
        except laconic.PeerLostError as error:
            return str(error)
    return "no error"
