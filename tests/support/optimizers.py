"""Optimizers around the small model, as the tests of `DistributedOptimizer` and of `Simulation` make them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import laconic
from support import methods, small_model
from support.deadlines import PATIENCE_S

INNER: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
}


class Branches(nn.Module):
    """The small model, followed by layers that are used in some rounds, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.core = small_model.net()
        self.late = nn.Linear(3, 3)
        self.never = nn.Linear(3, 3)
        self.uses_late = False
        with torch.no_grad():
            for layer in (self.late, self.never):
                layer.weight.copy_(torch.eye(3))
                layer.bias.fill_(0.25)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.core(inputs)
        return self.late(hidden) if self.uses_late else hidden


def wrapped(net: nn.Module, name: str, layout: str, inner: torch.optim.Optimizer | None = None, **settings: Any) -> Any:
    """A DistributedOptimizer of the named method with its test settings, around SGD unless `inner` is given."""
    algorithm = methods.with_test_settings(name)
    inner = inner or torch.optim.SGD(net.parameters(), lr=algorithm.test_lr)
    settings = {"model": net, "seed": 5, "timeout_s": PATIENCE_S} | settings
    return laconic.DistributedOptimizer(inner, algorithm, layout=layout, **settings)


def one_step(opt: Any, net: nn.Module, rank: int, round_: int, factor: float = 1.0) -> None:
    """zero_grad, backward, step; the loss is multiplied by `factor`."""

    def closure() -> Tensor:
        opt.zero_grad()
        loss = small_model.loss(net, rank, round_) * factor
        loss.backward()
        return loss

    if opt.algorithm.second_gradient and not opt.serves_only:
        opt.step(closure)
        return
    if not opt.serves_only:
        closure()
    opt.step()


def state_of(opt: Any) -> dict[str, Any]:
    """Copies of everything that a round may change: memories, the inner optimizer's state, the server's model."""
    state = opt.state_dict()
    inner = [{key: torch.as_tensor(value).clone() for key, value in of.items()} for of in state["state"].values()]
    part = state["laconic"]
    sessions = [part["driver"]["worker"], *part["driver"]["servers"]]
    memories = [session["memory"] for session in sessions if session is not None]
    return {"memories": memories, "server_model": part.get("server_model"), "inner": inner}
