"""Peers of the step bench: DistributedDataParallel, with its own reduction and with torch's hooks that compress.

It reduces in a backward pass only. Its loss is the sum of the parameters, whose gradient costs almost nothing, and its
time under `no_sync` is measured too.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from laconic.bench.contender import LR, Contender, Model

_ONE_BUCKET_MB = 1 << 14
_COMPRESSES_FROM_STEP = 2  # the hook admits no earlier one
Hook = Callable[[DistributedDataParallel], None]


def _plain(model: DistributedDataParallel) -> None:
    pass


def _fp16(model: DistributedDataParallel) -> None:
    model.register_comm_hook(None, fp16_compress_hook)


def _power_sgd(model: DistributedDataParallel) -> None:
    state = PowerSGDState(None, matrix_approximation_rank=1, start_powerSGD_iter=_COMPRESSES_FROM_STEP)
    model.register_comm_hook(state, powerSGD_hook)


PEERS: dict[str, Hook] = {"ddp": _plain, "ddp-fp16": _fp16, "ddp-powersgd": _power_sgd}


class DDP(Contender):
    """Forward, backward with the reduction, and the optimizer's step."""

    def __init__(self, shapes: list[tuple[int, ...]], momentum: float, hook: Hook) -> None:
        # With several buckets PowerSGD's hook fails over gloo: ranks follow up their sums in unlike orders.
        self.model = DistributedDataParallel(
            Model(shapes), bucket_cap_mb=_ONE_BUCKET_MB if hook is _power_sgd else None
        )
        hook(self.model)
        self.inner = torch.optim.SGD(self.model.parameters(), lr=LR, momentum=momentum)

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
