"""A small model and its data, the same in every process."""

import functools

import torch
from torch import Tensor, nn

from laconic.random_keys import make_key

N_PARAMETERS = 6 * 11 + 11 + 11 * 3 + 3


def net() -> nn.Sequential:
    """A two-layer net of N_PARAMETERS."""
    generator = torch.Generator().manual_seed(7)
    made = nn.Sequential(nn.Linear(6, 11), nn.Tanh(), nn.Linear(11, 3))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return made


@functools.cache
def batch(rank: int, round_: int) -> tuple[Tensor, Tensor]:
    """The inputs and labels of a worker in a round. Nobody changes them."""
    generator = torch.Generator().manual_seed(make_key(3, "data", rank, round_, "batch") >> 1)
    inputs = torch.randn(8, 6, generator=generator)
    return inputs, (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.3).long()


def loss(net: nn.Module, rank: int, round_: int) -> Tensor:
    """Worker `rank`'s loss on its mini-batch of this round."""
    inputs, labels = batch(rank, round_)
    like = next(net.parameters())
    return nn.functional.cross_entropy(net(inputs.to(like)), labels.to(like.device))


def values(net: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def values_of_gradients(net: nn.Module) -> Tensor:
    """All gradients as one vector."""
    return torch.cat([p.grad.reshape(-1) for p in net.parameters() if p.grad is not None])
