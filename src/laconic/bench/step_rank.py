"""One rank of the step bench: it times the contenders of one size, each alone and in turns."""

import cProfile
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.bench.contender import N_GRADIENTS, AllReduce, Contender, Gathered, Ours, resnet_shapes
from laconic.bench.ddp import DDP, PEERS, DDPAlone
from laconic.bench.floor import Floor
from laconic.buffer_pool import return_unused_memory

_CALLS_OF_COUNTING = 2  # of the contender's step, and of what ends the count


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
        self._gradients = [[torch.randn(shape, generator=random) for shape in shapes] for _ in range(N_GRADIENTS)]
        self._contenders = {
            "all-reduce": AllReduce(shapes, self._gradients[0], momentum),
            "gathered": Gathered(shapes, self._gradients[0], momentum),
        }

    def add(self, name: str, settings: Mapping[str, str] | None = None, floor: str = "", layout: str = "auto") -> str:
        """Add a contender.

        Args:
            name: One of `PEERS`, or the name of a method.
            settings: The hyper-parameters of the method.
            floor: The name of another contender, which moves the bytes that the method has just moved; "" for none.
            layout: Who serves the method. The contender of another than "auto" is called NAME:LAYOUT.

        Returns:
            The layout of the contender.
        """
        if name in PEERS:
            model = DDP(self._shapes, self._momentum, PEERS[name])
            self._contenders |= {name: model, f"{name} no_sync": DDPAlone(model)}
            return "allreduce"
        ours = Ours(name, settings or {}, self._shapes, self._gradients, self._momentum, layout)
        self._contenders[name if layout == "auto" else f"{name}:{layout}"] = ours
        if floor:
            self._contenders[floor] = Floor(ours.record)
        return ours.opt.driver.layout.name

    def remove(self, name: str, floor: str = "") -> None:
        """Remove a contender, and its floor. What follows begins without the memory that they had."""
        self._contenders.pop(f"{name} no_sync", None)
        self._contenders.pop(floor, None)
        self._contenders.pop(name).close()
        return_unused_memory()

    def count_calls(self, name: str, steps: int) -> float:
        """Return how many functions one step of a contender calls on this rank, those built into Python included.

        Args:
            name: The contender. It takes two steps before, since some do more in the first.
            steps: The number of steps that are counted; the result is their mean.
        """
        contender = self._contenders[name]
        profile = cProfile.Profile()
        for number in range(2 + steps):
            contender.prepare()
            dist.barrier()
            if number >= 2:
                profile.enable()
            contender.step()
            profile.disable()
        n_calls = sum(each.callcount for each in profile.getstats())
        return n_calls / steps - _CALLS_OF_COUNTING

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
            "seconds": the times of each contender, by turn, without second gradients; "phases": the sums of its phases
            and bytes.
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
                seconds[name].append(time.perf_counter() - start - contender.left_out_s())
        after = {name: contender.phases() for name, contender in chosen.items()}
        phases = {name: {key: after[name][key] - before[name][key] for key in after[name]} for name in chosen}
        return {"seconds": seconds, "phases": phases}
