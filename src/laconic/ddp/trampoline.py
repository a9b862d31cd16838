"""The one communication hook that a DistributedDataParallel model gets: torch takes one, for ever.

What it does can be changed at any time: the rounds of a method, or the plain mean.
"""

from collections.abc import Callable
from typing import Any, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from laconic.errors import SetupError
from laconic.torch_compat import GradBucket, hooks_of


class Rounds(Protocol):
    """What takes the buckets of backward passes."""

    def take(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Take a bucket, and return the future of what replaces its values."""


class Trampoline:
    """The state of the hook: who takes the buckets now."""

    rounds: Rounds | None = None
    """What takes the buckets; None for the plain mean."""
    before: Callable[[], None] | None = None
    """Called with the next bucket, before it is taken; it may change who takes it. None for nothing."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        """`group`: the ranks that DistributedDataParallel averages over; None if that is not known yet."""
        self.group = group

    def take(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Take a bucket."""
        if self.before is not None:
            self.before()
        if self.rounds is None:
            assert self.group is not None, "it is known as soon as a method was attached"
            mean: torch.futures.Future[Tensor] = allreduce_hook(self.group, bucket)
            return mean
        return self.rounds.take(bucket)

    def check_free(self) -> None:
        """Raise SetupError if a method takes the buckets."""
        if self.rounds is not None:
            raise SetupError(
                "model: a method is attached already; use its handle's replace(method), or detach() it before"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Return None: a copied model makes a reducer of its own, which has no hook."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Return None's way to be pickled, for the same reason."""
        return type(None), ()

    @classmethod
    def of(cls, ddp: DistributedDataParallel) -> Self:
        """Return the trampoline of a model, registered now if it has none.

        Raises:
            SetupError: if it has another communication hook.
        """
        for state, hook in hooks_of(ddp):
            if isinstance(state, cls):
                state.group = ddp.process_group
                return state
            if state is not None or hook is not laconic_hook:
                raise SetupError(_refusal(getattr(hook, "__qualname__", repr(hook))))
        state = cls(ddp.process_group)
        try:
            ddp.register_comm_hook(state, laconic_hook)
        except RuntimeError as error:
            raise SetupError(_refusal("one of torch's own")) from error
        return state


def _refusal(name: str) -> str:
    return (
        f"model: DistributedDataParallel has a communication hook already ({name}), and torch takes one for ever; "
        "leave out what registers it, and wrap the model anew"
    )


def laconic_hook(state: Trampoline, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Hand a bucket to whoever takes them now. torch reads the annotations."""
    return state.take(bucket)
