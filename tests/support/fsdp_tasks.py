"""Models that `fully_shard` has sharded over two ranks of each of two nodes; tasks of one rank of four."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import laconic
import laconic.fsdp
from laconic.ddp.carriable import why_not
from support import small_model
from support.deadlines import PATIENCE_S
from support.methods import with_test_settings

N_NODES, N_SHARDS, LR = 2, 2, 0.05


class Net(nn.Module):
    """Layers whose rows do not divide by two, and a factor of one element, of which one shard has nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = small_model.net()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs) * self.factor


def mesh() -> DeviceMesh:
    """Two nodes of two ranks."""
    return init_device_mesh("cpu", (N_NODES, N_SHARDS), mesh_dim_names=("replicate", "shard"))


def sharded(over: DeviceMesh, **settings: Any) -> Net:
    """The model, sharded inside each node: a layer for itself, the rest in the root."""
    net = Net()
    fully_shard(net.layers[0], mesh=over["shard"], **settings)
    fully_shard(net, mesh=over["shard"], **settings)
    return net


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)


def full_values(net: nn.Module) -> Tensor:
    """All parameters as one vector, gathered inside the node."""
    return torch.cat([p.full_tensor().detach().reshape(-1) for p in net.parameters() if isinstance(p, DTensor)])


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, rank: int, rounds: range) -> Tensor:
    """Train as a user does; returns the parameters."""
    for round_ in rounds:
        optimizer.zero_grad()
        small_model.loss(net, rank, round_).backward()
        optimizer.step()
    return full_values(net)


def attached(net: nn.Module, method: Any, over: DeviceMesh, **settings: Any) -> laconic.fsdp.Handle:
    """A method attached with the tests' patience."""
    return laconic.fsdp.attach(net, method, mesh=over, **{"timeout_s": PATIENCE_S} | settings)


class Twin:
    """What a method does with two workers for each shard: the plain computation, in one process."""

    def __init__(self, method: laconic.Algorithm, names: list[str]) -> None:
        """`names`: of the parameters, in the order in which they are exchanged."""
        self.net = Net()
        self._parameters = [dict(self.net.named_parameters())[name] for name in names]
        self._shards = [_parts_of(self._parameters, number) for number in range(N_SHARDS)]
        self.simulations = [
            laconic.Simulation(shard, sgd(shard), method, workers=N_NODES, lr="kept", frames="encoded")
            for shard in self._shards
        ]

    def step(self, round_: int) -> None:
        """Take one step with the means of each node's gradients."""
        means = [self._mean_gradients(node, round_) for node in range(N_NODES)]
        for number, (shard, simulation) in enumerate(zip(self._shards, self.simulations, strict=True)):
            simulation.step(partial(_loss, shard, [[part_of(each, number) for each in mean] for mean in means]))
            with torch.no_grad():
                for parameter, part in zip(self._parameters, shard, strict=True):
                    part_of(parameter, number).copy_(part)

    def _mean_gradients(self, node: int, round_: int) -> list[Tensor]:
        found = []
        for rank in range(node * N_SHARDS, (node + 1) * N_SHARDS):
            loss = small_model.loss(self.net, rank, round_)
            found.append(torch.autograd.grad(loss, self._parameters))
        return [sum(each) / N_SHARDS for each in zip(*found, strict=True)]


def _parts_of(parameters: list[nn.Parameter], number: int) -> nn.ParameterList:
    return nn.ParameterList([part_of(parameter.detach(), number).clone() for parameter in parameters])


def part_of(tensor: Tensor, number: int) -> Tensor:
    """What a shard has of a tensor."""
    parts = tensor.chunk(N_SHARDS)
    return parts[number] if number < len(parts) else tensor[:0]


def _loss(shard: nn.ParameterList, gradients: list[list[Tensor]], node: int) -> Tensor:
    pairs = zip(shard, gradients[node], strict=True)
    return torch.stack([(parameter * gradient).sum() for parameter, gradient in pairs]).sum()


def methods_as_twins(rank: int, over: DeviceMesh, names: list[str], rounds: int) -> dict[str, dict[str, Any]]:
    """The parameters and traffic after some rounds, and those of the plain computation."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        method = with_test_settings(name)
        net = sharded(over)
        optimizer = sgd(net)
        handle = attached(net, method, over, **({"optimizer": optimizer} if why_not(method) else {}))
        values = trained(net, optimizer, rank, range(rounds))
        found[name] = {"values": values, "traffic": handle.traffic, "total": handle.total_traffic()}
        found[name]["slices"], order = handle.n_slices, list(handle.state_dict()["parameters"])
        handle.detach()
        if rank == 0:
            twin = Twin(method, order)
            for round_ in range(rounds):
                twin.step(round_)
            found[name] |= {
                "expected": small_model.values(twin.net),
                "bytes": sum(each.traffic.up.wire_bytes for each in twin.simulations),
                "messages": sum(each.traffic.up.messages for each in twin.simulations),
            }
    return found
