"""A communication hook and its state, for places that take nothing else, such as Lightning's `DDPStrategy`."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from laconic.contract import Algorithm
from laconic.ddp.carriable import check_attachable
from laconic.ddp.handle import Handle
from laconic.ddp.settings import Settings
from laconic.ddp.trampoline import Trampoline, laconic_hook
from laconic.drivers.distributed.nodes import Nodes
from laconic.statements import warn
from laconic.torch_compat import GradBucket, hooks_of
from laconic.training.automatic import Method
from laconic.training.wrappers import wrappers_of


class HookState(Trampoline):
    """The state of a hook that attaches its method in the earliest backward pass."""

    def __init__(self, method: Method, settings: Settings) -> None:
        """Keep what `attach` needs."""
        super().__init__()
        self._method, self._settings = method, settings
        self.handle: Handle | None = None
        """What `attach` would have returned, from the earliest backward pass on."""

    def take(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Take a bucket. The earliest one makes the ranks agree."""
        if self.handle is None:
            self.handle = Handle(self._model_of(bucket), self._method, self._settings)
        return super().take(bucket)

    def _model_of(self, bucket: GradBucket) -> DistributedDataParallel:
        wrappers = wrappers_of({id(parameter) for parameter in bucket.parameters()})
        models = [wrapper for wrapper in wrappers if isinstance(wrapper, DistributedDataParallel)]
        return next(model for model in models if any(state is self for state, _ in hooks_of(model)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes the same state in another process, before any backward pass."""
        return type(self), (self._method, self._settings)


def hook(
    method: Method,
    *,
    layout: str = "auto",
    seed: int = 0,
    timeout_s: float | None = None,
    overlap: bool | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
    nodes: Nodes = None,
    check_every: int = 100,
    replicas: str = "sync",
    allowed: Sequence[Algorithm] | None = None,
) -> tuple[HookState, Callable[[Any, GradBucket], torch.futures.Future[Tensor]]]:
    """Return a state and a hook, for `ddp.register_comm_hook(state, hook)` and whatever ends in it.

    The method is attached in the earliest backward pass; from then on `state.handle` is its handle. torch's wrappers,
    such as `fp16_compress_wrapper(hook)`, may be put around the hook: buckets then have half precision.

    Args:
        method: what exchanges the gradients.
        layout: as for `attach`, and so are the others.
        seed: seed of all random draws of the method.
        timeout_s: how long another rank is waited for, seconds.
        overlap: whether slices are exchanged while the backward pass goes on.
        clip_norm: the largest norm of the direction.
        clip_value: the largest magnitude of its elements.
        nodes: the ranks that share a node.
        check_every: rounds between two comparisons of the replicas.
        replicas: what happens to replicas that differ by rounding.
        allowed: what "auto" may choose.

    Raises:
        ValueError: for a method that a hook cannot carry, and for other wrong arguments.
    """
    settings = Settings(
        optimizer=None, layout=layout, seed=seed, timeout_s=timeout_s, overlap=overlap, local_steps=1,
        grad_scaler=None, clip_norm=clip_norm, clip_value=clip_value, nodes=nodes,
        check_every=check_every, replicas=replicas, allowed=allowed,
    )  # fmt: skip
    check_attachable(method, settings)
    if {"lightning", "pytorch_lightning"} & sys.modules.keys() and not torch.cuda.is_available():
        warn(
            "Lightning registers a ddp_comm_hook on GPUs only, and says nothing where it does not; here there is none: "
            "let a callback call laconic.ddp.attach(trainer, method) in on_fit_start"
        )
    return HookState(method, settings), laconic_hook
