"""One rank of the bench of two levels; those of a node share a network namespace."""

import resource
import time
from typing import Any

import torch
import torch.distributed as dist
from ranks import TIMEOUT_S

import laconic
from laconic.bench.contender import Model, resnet_shapes

FLAT, TWO_LEVELS = "flat", "two levels"
_WARM_UP = 2


class NodesRank:
    """One rank, which takes steps of a method in both layouts, with given gradients."""

    def set_up(self, method: str, layout: str, d: int, nodes: int) -> None:
        """Make an optimizer of each layout, in place of those before."""
        for opt, _ in vars(self).get("_made", {}).values():
            opt.close()
        shapes, random = resnet_shapes(d), torch.Generator().manual_seed(dist.get_rank())
        self._gradients = [torch.randn(shape, generator=random) for shape in shapes]
        self._made: dict[str, tuple[laconic.DistributedOptimizer, Model]] = {}
        for name, given in ((FLAT, None), (TWO_LEVELS, nodes)):
            model = Model(shapes)
            opt = laconic.DistributedOptimizer(
                torch.optim.SGD(model.parameters(), lr=1e-3), laconic.ALGORITHMS[method](), model=model,
                check_every=0, timeout_s=TIMEOUT_S, lr="kept", layout=layout, nodes=given,
            )  # fmt: skip
            self._made[name] = opt, model

    def measure(self, turns: int) -> dict[str, Any]:
        """Return the seconds of each layout's steps, taken in turns, and those of a processor in all threads."""
        seconds: dict[str, list[float]] = {name: [] for name in self._made}
        used: dict[str, list[float]] = {name: [] for name in self._made}
        for turn in range(_WARM_UP + turns):
            for name in self._made:
                taken_s, used_s = self._step(name)
                if turn >= _WARM_UP:
                    seconds[name].append(taken_s)
                    used[name].append(used_s)
        layouts = {name: opt.driver.layout.name for name, (opt, _) in self._made.items()}
        return {"seconds": seconds, "processor_s": used, "layouts": layouts}

    def repeat(self, name: str, turns: int) -> None:
        """Take steps of one layout, for who counts what they send."""
        for _ in range(turns):
            self._step(name)

    def _step(self, name: str) -> tuple[float, float]:
        opt, model = self._made[name]
        for value, gradient in zip(model.values, self._gradients, strict=True):
            value.grad = gradient
        dist.barrier()
        start, used = time.perf_counter(), _processor_s()
        opt.step()
        return time.perf_counter() - start, _processor_s() - used


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
