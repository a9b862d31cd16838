"""One rank of the step bench: contenders that exchange and update the same parameters, each timed alone.

Gradients are given, so that no forward and backward is timed. DistributedDataParallel needs a backward: its loss is the
sum of the parameters, whose gradient costs almost nothing, and its time under `no_sync` is measured too.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from laconic.lab.algorithms import make_algorithm
from laconic.training.distributed_optimizer import DistributedOptimizer

_N_GRADIENTS = 3  # used in turn, so that lazy methods see a changed gradient in each round
_LR = 0.01
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


class BenchRank:
    """One rank, which times all contenders of one size."""

    def __init__(self) -> None:
        self._shapes: list[tuple[int, ...]] = []
        self._gradients: list[list[Tensor]] = []
        self._contenders: dict[str, Contender] = {}
        self._momentum = 0.0

    def set_up(self, d: int, momentum: float = 0.0) -> None:
        """Make new gradients and the baseline contenders.

        Args:
            d: The number of parameters.
            momentum: The momentum of the SGD of all contenders.
        """
        self.clear()
        self._momentum = momentum
        self._shapes = shapes = resnet_shapes(d)
        random = torch.Generator().manual_seed(dist.get_rank())
        self._gradients = [[torch.randn(shape, generator=random) for shape in shapes] for _ in range(_N_GRADIENTS)]
        self._contenders = {
            "all-reduce": AllReduce(shapes, self._gradients[0], momentum),
            "gathered": Gathered(shapes, self._gradients[0], momentum),
        }

    def add(self, name: str, settings: Mapping[str, str] | None = None) -> str:
        """Add a contender.

        Args:
            name: "ddp", "ddp-fp16", or the name of a method.
            settings: The hyper-parameters of the method.

        Returns:
            The layout of the contender.
        """
        if name in ("ddp", "ddp-fp16"):
            model = DDP(self._shapes, self._momentum, fp16=name == "ddp-fp16")
            self._contenders |= {name: model, f"{name} no_sync": DDPAlone(model)}
            return "allreduce"
        ours = Ours(name, settings or {}, self._shapes, self._gradients, self._momentum)
        self._contenders[name] = ours
        return ours.opt.driver.layout.name

    def remove(self, name: str) -> None:
        """Remove a contender, to free its memory."""
        self._contenders.pop(f"{name} no_sync", None)
        self._contenders.pop(name).close()

    def clear(self) -> None:
        """Remove all contenders."""
        for name in [name for name in self._contenders if not name.endswith("no_sync")]:
            self.remove(name)

    def warm_up(self, names: list[str]) -> float:
        """Return the seconds of one step of each contender, after two warm-up steps: some send more in the first."""
        for _ in range(3):
            start = time.perf_counter()
            for name in names:
                self._contenders[name].prepare()
                self._contenders[name].step()
        return time.perf_counter() - start

    def measure(self, repeats: int, names: list[str]) -> dict[str, Any]:
        """Time the contenders in turns, each from when all ranks are ready.

        Args:
            repeats: The number of turns.
            names: The contenders.

        Returns:
            "seconds": the times of each contender, by turn; "phases": the sums of its phases and bytes.
        """
        chosen = {name: self._contenders[name] for name in names}
        before = {name: contender.phases() for name, contender in chosen.items()}
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for _ in range(repeats):
            for name, contender in chosen.items():
                contender.prepare()
                dist.barrier()
                start = time.perf_counter()
                contender.step()
                seconds[name].append(time.perf_counter() - start)
        after = {name: contender.phases() for name, contender in chosen.items()}
        phases = {name: {key: after[name][key] - before[name][key] for key in after[name]} for name in chosen}
        return {"seconds": seconds, "phases": phases}


class Contender(ABC):
    """A step that is timed, with a preparation that is not."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Prepare a step; not timed."""

    @abstractmethod
    def step(self) -> None:
        """Take the step that is timed."""

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
        self._inner = torch.optim.SGD(model.parameters(), lr=_LR, momentum=momentum)

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
        self._inner = torch.optim.SGD(self._values, lr=_LR, momentum=momentum)

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
    ) -> None:
        self._model = Model(shapes)
        inner = torch.optim.SGD(self._model.parameters(), lr=_LR, momentum=momentum)
        algorithm = make_algorithm(name, settings)
        self.opt = DistributedOptimizer(inner, algorithm, model=self._model, check_every=0, lr="kept")
        self._gradients = gradients
        self._n_given = 0
        needs_closure = algorithm.second_gradient or algorithm.is_asynchronous
        self._closure: Callable[[], float] | None = self._give if needs_closure else None

    def _give(self) -> float:
        for value, gradient in zip(self._model.values, self._gradients[self._n_given % _N_GRADIENTS], strict=True):
            value.grad = gradient
        self._n_given += 1
        return 0.0

    def prepare(self) -> None:
        if self._closure is None:
            self._give()

    def step(self) -> None:
        self.opt.step(self._closure)

    def phases(self) -> dict[str, float]:
        traffic = self.opt.traffic
        wire = {"bytes_up": float(traffic.up.wire_bytes), "bytes_down": float(traffic.down.wire_bytes)}
        return {**traffic.seconds, **wire}

    def close(self) -> None:
        dist.destroy_process_group(self.opt.driver.channel.group)


class DDP(Contender):
    """Forward, backward with the reduction, and the optimizer's step."""

    def __init__(self, shapes: list[tuple[int, ...]], momentum: float, *, fp16: bool) -> None:
        self.model = DistributedDataParallel(Model(shapes))
        if fp16:
            self.model.register_comm_hook(None, fp16_compress_hook)
        self.inner = torch.optim.SGD(self.model.parameters(), lr=_LR, momentum=momentum)

    def prepare(self) -> None:
        self.inner.zero_grad()

    def step(self) -> None:
        with self.reducing():
            self.model().backward()
        self.finish()

    def reducing(self) -> Any:  # noqa: ANN401 - a context manager
        return nullcontext()

    def finish(self) -> None:
        self.inner.step()


class DDPAlone(DDP):
    """Forward and backward without reduction and step, to be subtracted from DDP's time."""

    def __init__(self, ddp: DDP) -> None:
        self.model, self.inner = ddp.model, ddp.inner

    def reducing(self) -> Any:  # noqa: ANN401
        return self.model.no_sync()

    def finish(self) -> None:
        pass
