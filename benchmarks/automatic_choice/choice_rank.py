"""One rank of the bench of "auto": it takes steps of every candidate, and of the one that was chosen, in turns."""

import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from ranks import TIMEOUT_S

import laconic
from laconic.bench.contender import Model, resnet_shapes
from laconic.errors import OptionError
from laconic.planning.choosing import LAYOUTS_OF_ALL
from laconic.training.automatic import Method

AUTO = "auto"
_WARM_UP = 1


class ChoiceRank:
    """One rank, with given gradients."""

    def set_up(self, d: int, methods: list[str]) -> list[str]:
        """Make an optimizer of plain all-reduce, and of every method on every layout; return their names."""
        self._shapes, random = resnet_shapes(d), torch.Generator().manual_seed(dist.get_rank())
        self._gradients = [torch.randn(shape, generator=random) for shape in self._shapes]
        self._allowed = [laconic.ALGORITHMS[name]() for name in methods]
        self._made: dict[str, tuple[laconic.DistributedOptimizer, Model]] = {}
        for method, layout in (("sgd", "allreduce"), *((name, each) for name in methods for each in LAYOUTS_OF_ALL)):
            try:
                self._made[f"{method} on {layout}"] = self._optimizer(laconic.ALGORITHMS[method](), layout=layout)
            except OptionError:
                continue  # the method does not admit the layout
        return list(self._made)

    def _optimizer(
        self, method: Method, layout: str = "auto", allowed: Sequence[laconic.Algorithm] | None = None
    ) -> tuple[laconic.DistributedOptimizer, Model]:
        model = Model(self._shapes)
        inner = torch.optim.SGD(model.parameters(), lr=1e-3)
        return laconic.DistributedOptimizer(
            inner,
            method,
            model=model,
            layout=layout,
            allowed=allowed,
            check_every=0,
            timeout_s=TIMEOUT_S,
            lr="kept",
        ), model

    def choose(self) -> dict[str, Any]:
        """Let "auto" choose on the links as they are now; return what, how long it took, and the bytes it has sent."""
        if AUTO in self._made:
            self._made.pop(AUTO)[0].close()
        self._made[AUTO] = self._optimizer("auto", allowed=self._allowed)
        taken_s = self._step(AUTO)
        automatic = self._made[AUTO][0].automatic
        assert automatic is not None
        assert automatic.chosen is not None
        return {
            "chosen": f"{automatic.chosen.algorithm.name} on {automatic.chosen.layout}", "choosing_s": taken_s,
            "sent_bytes": automatic.chosen.sent_bytes, "reason": automatic.chosen.reason,
            "step_s": {f"{name} on {layout}": taken for (name, layout), taken in automatic.chosen.step_s.items()},
        }  # fmt: skip

    def measure(self, turns: int, names: list[str]) -> dict[str, list[float]]:
        """Return the seconds of the steps of these, taken in turns."""
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(_WARM_UP + turns):
            for name in names:
                taken_s = self._step(name)
                if turn >= _WARM_UP:
                    seconds[name].append(taken_s)
        return seconds

    def _step(self, name: str) -> float:
        opt, model = self._made[name]
        for value, gradient in zip(model.values, self._gradients, strict=True):
            value.grad = gradient
        dist.barrier()
        start = time.perf_counter()
        opt.step()
        return time.perf_counter() - start
