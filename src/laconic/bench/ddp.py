"""Peers of the step bench: DistributedDataParallel, with its own reduction, torch's hooks and hivemind's codec.

It reduces in a backward pass only. Its loss is the sum of the parameters, whose gradient costs almost nothing, and its
time under `no_sync` is measured too.
"""

from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from laconic.bench.contender import LR, Contender, Model
from laconic.torch_compat import GradBucket

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


def _hivemind(model: DistributedDataParallel) -> None:
    """Send what hivemind sends of a gradient, in its 8 bits, from all to all: its own averaging needs its daemon."""
    codec, kinds = import_module("hivemind.compression"), import_module("hivemind.proto.runtime_pb2")

    def hook(state: None, bucket: GradBucket) -> Future[torch.Tensor]:
        gradient = bucket.buffer()
        message = codec.serialize_torch_tensor(gradient, kinds.CompressionType.UNIFORM_8BIT)
        own = torch.frombuffer(bytearray(message.SerializeToString()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([len(own)]))
        padded = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        gradient.zero_()
        for size, data in zip(sizes, found, strict=True):
            read = kinds.Tensor.FromString(data[: int(size)].numpy().tobytes())
            gradient.add_(codec.deserialize_torch_tensor(read), alpha=1 / len(sizes))
        future: Future[torch.Tensor] = Future()
        future.set_result(gradient)
        return future

    model.register_comm_hook(None, hook)


PEERS: dict[str, Hook] = {"ddp": _plain, "ddp-fp16": _fp16, "ddp-powersgd": _power_sgd}
if find_spec("hivemind"):
    PEERS["ddp-hivemind"] = _hivemind


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
