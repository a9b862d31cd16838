"""What the step bench times: loops that exchange and update the same parameters.

Gradients are given, so that no forward and backward is timed. DistributedDataParallel needs a backward: see `ddp.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
import torch.distributed as dist
from torch import Tensor, nn

from laconic.lab.algorithms import make_algorithm
from laconic.telemetry.moved import Moved
from laconic.training.distributed_optimizer import DistributedOptimizer

N_GRADIENTS = 3  # used in turn, so that lazy methods see a changed gradient in each round
LR = 0.01
_STAGES = ((2, 1), (2, 2), (2, 4), (2, 8))  # blocks, and width as a multiple of the first


def resnet_shapes(d: int) -> list[tuple[int, ...]]:
    """Return shapes like ResNet-18's with d parameters: equal for 11,173,962, else with a remainder at the end."""
    width = 64
    while width > 1 and _n_parameters(_resnet(width)) > d:
        width -= 1
    while _n_parameters(_resnet(width + 1)) <= d:
        width += 1
    shapes = _resnet(width) if _n_parameters(_resnet(width)) <= d else []
    left = d - _n_parameters(shapes)
    return [*shapes, (left,)] if left else shapes


def _resnet(width: int) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = [(width, 3, 3, 3), (width,), (width,)]
    into = width
    for blocks, times in _STAGES:
        out = width * times
        for _ in range(blocks):
            shapes += [(out, into, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if into != out:
                shapes += [(out, into, 1, 1), (out,), (out,)]
            into = out
    return [*shapes, (10, into), (10,)]


def _n_parameters(shapes: list[tuple[int, ...]]) -> int:
    return sum(prod(shape) for shape in shapes)


class Model(nn.Module):
    """Parameters of given shapes, and a loss whose gradient costs almost nothing."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes])

    def forward(self) -> Tensor:
        return torch.stack([value.sum() for value in self.values]).sum()


class Contender(ABC):
    """A step that is timed, with a preparation that is not."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Prepare a step; not timed."""

    @abstractmethod
    def step(self) -> None:
        """Take the step that is timed."""

    def left_out_s(self) -> float:
        """Return the seconds of the last step that are not the contender's: of computing a second gradient."""
        return 0.0

    def phases(self) -> dict[str, float]:
        """Return the sums of seconds and bytes since the start, by phase and direction."""
        return {}

    def close(self) -> None:  # noqa: B027 - or to end
        """Release resources beyond memory."""


class AllReduce(Contender):
    """One flat `dist.all_reduce` of the float32 gradient, and the optimizer's step.

    The gradient is flat from the start and is not divided by N, so no other loop over all-reduce does less.
    """

    def __init__(self, shapes: list[tuple[int, ...]], gradient: list[Tensor], momentum: float) -> None:
        self._given = torch.cat([part.flatten() for part in gradient])
        self._flat = self._given.clone()
        model = Model(shapes)
        parts = torch.split(self._flat, [prod(shape) for shape in shapes])
        for value, part in zip(model.values, parts, strict=True):
            value.grad = part.view_as(value)
        self._inner = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum)

    def prepare(self) -> None:
        self._flat.copy_(self._given)

    def step(self) -> None:
        dist.all_reduce(self._flat)
        self._inner.step()


class Gathered(Contender):
    """The same loop from one gradient tensor per parameter, as after a backward, and with their mean."""

    def __init__(self, shapes: list[tuple[int, ...]], gradient: list[Tensor], momentum: float) -> None:
        self._gradient = gradient
        self._values = list(Model(shapes).values)
        self._sizes = [value.numel() for value in self._values]
        self._flat = torch.empty(sum(self._sizes))
        self._inner = torch.optim.SGD(self._values, lr=LR, momentum=momentum)

    def step(self) -> None:
        torch.cat([part.view(-1) for part in self._gradient], out=self._flat)
        dist.all_reduce(self._flat)
        self._flat /= dist.get_world_size()
        for value, part in zip(self._values, torch.split(self._flat, self._sizes), strict=True):
            value.grad = part.view_as(value)
        self._inner.step()


class Ours(Contender):
    """A method: the full `DistributedOptimizer.step()`, from gradients as after a backward."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, str],
        shapes: list[tuple[int, ...]],
        gradients: list[list[Tensor]],
        momentum: float,
        layout: str = "auto",
    ) -> None:
        self._model = Model(shapes)
        inner = torch.optim.SGD(self._model.parameters(), lr=LR, momentum=momentum)
        algorithm = make_algorithm(name, settings)
        if "warm_up_rounds" in algorithm.settings():  # in which lazy methods decide nothing
            algorithm = make_algorithm(name, {"warm_up_rounds": "0", **settings})
        self.opt = DistributedOptimizer(inner, algorithm, model=self._model, layout=layout, check_every=0, lr="kept")
        self._gradients = gradients
        self._n_given = 0
        needs_closure = algorithm.second_gradient or algorithm.is_asynchronous
        self._closure: Callable[[], float] | None = self._give if needs_closure else None
        self._computes = algorithm.second_gradient

    def record(self) -> Sequence[Moved]:
        """Return what the last step has moved, if it was recorded, and record the next one."""
        channel = self.opt.driver.channel
        moved, channel.moved = channel.moved or [], []
        return moved

    def _give(self) -> float:
        for value, gradient in zip(self._model.values, self._gradients[self._n_given % N_GRADIENTS], strict=True):
            value.grad = gradient
        self._n_given += 1
        return 0.0

    def prepare(self) -> None:
        if self._closure is None:
            self._give()
        if self._computes:
            self.opt.driver.seconds.phases = []

    def step(self) -> None:
        self.opt.step(self._closure)

    def left_out_s(self) -> float:
        phases = self.opt.driver.seconds.phases or []
        return sum([stop_s - start_s for what, start_s, stop_s in phases if what == "compute"][1:])  # within the round

    def phases(self) -> dict[str, float]:
        traffic = self.opt.traffic
        wire = {"bytes_up": float(traffic.up.wire_bytes), "bytes_down": float(traffic.down.wire_bytes)}
        return {**traffic.seconds, **wire}

    def close(self) -> None:
        dist.destroy_process_group(self.opt.driver.channel.group)
