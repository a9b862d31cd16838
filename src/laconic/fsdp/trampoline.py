"""The hooks that the groups of a sharded model get. What they do can be changed: rounds, or the plain mean."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from laconic.errors import SetupError
from laconic.torch_compat import reduce_groups_of, set_reduce_hook


class Rounds(Protocol):
    """What takes note of gradients that were averaged inside a node."""

    def take(self, parameters: Sequence[Tensor], reduced: Tensor) -> None:
        """Take note of a reduce-scatter's output, and of the sharded parameters that it is of."""


class ShardTrampoline:
    """Who takes what FSDP has averaged inside a node."""

    rounds: Rounds | None = None
    """What takes it; None for the plain mean over the nodes."""
    before: Callable[[], None] | None = None
    """Called before the next gradients are taken; it may change who takes them. None for nothing."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        """`group`: the ranks that have this shard, by node."""
        self._group = group

    def take(self, parameters: Sequence[Tensor], reduced: Tensor) -> None:
        """Take a reduce-scatter's output, and the sharded parameters that it is of."""
        if self.before is not None:
            self.before()
        if self.rounds is not None:
            self.rounds.take(parameters, reduced)
        else:
            dist.all_reduce(reduced, group=self._group)
            reduced.div_(self._group.size())

    @classmethod
    def of(cls, modules: Iterable[object], group: dist.ProcessGroup) -> Self:
        """Return the trampoline of these modules, set now if they have none.

        Raises:
            SetupError: if they have another hook, or a method, or torch has no such hooks.
            ValueError: from torch, for a module with several groups of parameters.
        """
        sharded = [module for module in modules if isinstance(module, nn.Module)]
        try:
            groups = [(module, *each) for module in sharded for each in reduce_groups_of(module)]
            trampoline = cls._set_in([hook for _, _, hook, _ in groups if hook is not None]) or cls(group)
            for module, _, _, parameters in groups:
                set_reduce_hook(module, GroupHook(trampoline, parameters))
        except (AttributeError, TypeError) as error:
            raise no_hook(error) from error
        return trampoline

    @classmethod
    def _set_in(cls, hooks: Sequence[object]) -> Self | None:
        """Return the trampoline that is set already, None for none. Raises SetupError if anything else is set."""
        found = None
        for hook in hooks:
            found = getattr(hook, "trampoline", None)
            if not isinstance(found, cls):
                raise SetupError(
                    f"model: FSDP has an all-reduce hook already ({getattr(hook, '__qualname__', repr(hook))}), and "
                    "takes one; leave out set_all_reduce_hook"
                )
        if found is not None and found.rounds is not None:
            raise SetupError(
                "model: a method is attached already; use its handle's replace(method), or detach() it before"
            )
        return found


class GroupHook:
    """The hook of one group of parameters."""

    def __init__(self, trampoline: ShardTrampoline, parameters: Sequence[Tensor]) -> None:
        """Hand what is averaged of `parameters` to `trampoline`."""
        self.trampoline, self._parameters = trampoline, parameters

    def __call__(self, reduced: Tensor) -> None:
        """Take a reduce-scatter's output."""
        self.trampoline.take(self._parameters, reduced)


def no_hook(error: Exception) -> SetupError:
    """Return what to raise where FSDP of this version of torch is not as laconic knows it."""
    return SetupError(
        f"model: FSDP of torch {torch.__version__} has no set_all_reduce_hook as laconic knows it ({error}); use "
        "another version of torch (docs/compatibility.md), or laconic.DistributedOptimizer"
    )
