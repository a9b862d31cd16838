"""The private and undocumented names of torch that laconic needs. No other file touches one.

Each says why, and since which torch there is the name; laconic supports torch 2.4 and later.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

if dist.is_available():
    # As in torch.distributed, where type checkers do not see them. Since 1.8.
    from torch._C._distributed_c10d import Store as Store
    from torch._C._distributed_c10d import TCPStore as TCPStore


def default_store() -> Store:
    """The store where the ranks of the default process group met. Raises ValueError where there is no group."""
    # Ranks that give up tell each other why, when no collective call works any more. No public function returns the
    # store, which the user's own call has made. Since 1.8.
    return dist.distributed_c10d._get_default_store()


def source_rank(work: dist.Work) -> int:
    """Which rank of the group a receive from any rank has received from. The receive must be over."""
    # `dist.recv` returns it, but waits without a deadline; it asks by this name itself. Since 1.0.
    return work._source_rank()


def bound_device(group: dist.ProcessGroup) -> torch.device | None:
    """The GPU that the user has bound this rank to for the whole group, by init_process_group(device_id=...)."""
    # Where there is one, NCCL splits smaller groups off the world's, in which every rank must take part. Since 2.3.
    return group.bound_device_id


def abort_of(group: dist.ProcessGroup) -> Callable[[], None] | None:
    """The method that ends all that the group has begun; None in versions of torch without it."""
    # Nothing else frees a device's stream from waiting for a rank that is lost.
    return getattr(group, "abort", None)


def version_of(tensor: Tensor) -> int:
    """How often the tensor was changed in place."""
    # Tells whether a vector that several workers share is still as it was made. Autograd counts for itself. Since 0.4.
    return tensor._version


def note_step(inner: Optimizer) -> None:
    """Let learning-rate schedulers take the optimizer for one that has stepped."""
    # They warn where it has not: with some methods its own `step` is never called. Since 2.4.
    inner._opt_called = True  # type: ignore[attr-defined]


def has_step_hooks(inner: Optimizer) -> bool:
    """Whether functions of the user's run before or after each step."""
    # They can be registered, but not asked for. Since 2.0.
    return bool(inner._optimizer_step_pre_hooks or inner._optimizer_step_post_hooks)


def step_is_replaced(inner: Optimizer) -> bool:
    """Whether somebody put another function in the place of `step`, other than a learning-rate scheduler."""
    # A scheduler's function only notes that it was called, and is marked so. Since 2.4.
    step = vars(inner).get("step")
    return step is not None and not getattr(step, "_wrapped_by_lr_sched", False)


class ScaledOptimizer(Optimizer):
    """An optimizer to which `torch.amp.GradScaler` leaves unscaling, and skipping where a gradient is not finite."""

    # GradScaler looks for the first name before it calls `step`, and sets the second for the time of the call. 1.13.
    _step_supports_amp_scaling = True

    @property
    def _loss_scale(self) -> Tensor | None:
        """What the loss was multiplied by; None outside of `step`, and without a GradScaler."""
        return getattr(self, "grad_scale", None)
