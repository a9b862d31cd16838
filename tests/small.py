"""A small model and its data, the same in every process."""

from contextlib import suppress

import torch
from torch import Tensor, nn

import laconic
from laconic.drivers.layout import LAYOUTS, choose_layout
from laconic.keys import make_key

# The methods whose workers step together, in one process or more.
IN_STEP = sorted(name for name, cls in laconic.ALGORITHMS.items() if cls.schedule != "arrivals")
D = 6 * 11 + 11 + 11 * 3 + 3


def model() -> nn.Sequential:
    """A two-layer net of D parameters."""
    generator = torch.Generator().manual_seed(7)
    net = nn.Sequential(nn.Linear(6, 11), nn.Tanh(), nn.Linear(11, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return net


def loss(net: nn.Module, rank: int, round_: int) -> Tensor:
    """Worker `rank`'s loss on its mini-batch of this round."""
    generator = torch.Generator().manual_seed(make_key(3, "data", rank, round_, "batch") >> 1)
    like = next(net.parameters())
    inputs = torch.randn(8, 6, generator=generator).to(like)
    labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.3).long()
    return nn.functional.cross_entropy(net(inputs), labels)


def values(net: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def sample_of(name: str) -> laconic.Algorithm:
    """An algorithm with its settings for the common tests."""
    cls = laconic.ALGORITHMS[name]
    return cls(**cls.toy)


def use_every_method() -> None:
    """A few rounds of each, with frames as processes send them."""
    for name in IN_STEP:
        net, algorithm = model(), sample_of(name)
        inner = torch.optim.SGD(net.parameters(), lr=algorithm.toy_lr)
        by_frames = {"server": "rank0", "faults": laconic.FaultPlan()} if algorithm.schedule == "rounds" else {}
        simulation = laconic.Simulation(net, inner, algorithm, workers=2, **by_frames)
        for round_ in range(3):
            simulation.step(lambda rank, net=net, round_=round_: loss(net, rank, round_))


def layouts_of(algorithm: laconic.Algorithm, n_nodes: int) -> list[str]:
    """The layouts that a method admits."""
    admitted = []
    for layout in LAYOUTS[1:]:
        with suppress(ValueError):
            choose_layout(layout, algorithm, d=D, n_nodes=n_nodes)
            admitted.append(layout)
    return admitted
