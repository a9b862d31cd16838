"""Backward passes of simulated workers side by side, in threads: torch computes there without Python's lock.

Forward passes are the user's code. They run in the thread that steps, one after the other in rank order, so random
numbers, data and buffers are those of a simulation without this. Those of the next workers run before a worker's
gradient is read; their backward passes, which then run on any core, compute what they would compute on one.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from laconic.contract import Algorithm
from laconic.errors import Named, OptionError
from laconic.torch_compat import has_gradient_hooks

Gradients = Sequence[Tensor | None]
"""The gradients of all parameters; None for one that the loss does not depend on."""
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_CHANGED = "modified by an inplace operation"  # as autograd says it


def check_side_by_side(
    n: int, algorithm: Algorithm, local_steps: int, *, steps_before: bool = False, device: str
) -> None:
    """Raise OptionError for a number below 1, or a job whose backward passes cannot run side by side.

    Args:
        n: how many are to run at once.
        algorithm: the method.
        local_steps: steps per exchange.
        steps_before: whether the inner optimizer steps before the exchange.
        device: the type of the device that computes.
    """
    named, why = Named("side_by_side", n), None
    if n < 1:
        raise OptionError(named, " must be at least 1; 1 computes one gradient after the other")
    if n == 1:
        return
    if algorithm.is_asynchronous or not algorithm.replicas_equal:
        why = f"the workers of {algorithm.name} have models of their own, and share the memory of one"
    elif algorithm.second_gradient:
        why = f"{algorithm.name} changes the model to compute second gradients"
    elif local_steps > 1 or steps_before:
        why = "the inner optimizer changes the model before each exchange, for one worker after the other"
    elif device != "cpu":
        why = f"the model is on {device}, and only cores are used side by side"
    if why is not None:
        raise OptionError(named, f": {why}; leave it at 1")


@dataclass(frozen=True, kw_only=True)
class Forward:
    """What a worker's forward pass has left."""

    loss: Tensor
    """The loss, one number with its graph."""
    buffers: list[Tensor]
    """The worker's buffers after it."""


@dataclass(kw_only=True)
class _Begun:
    forward: Forward
    gradients: Future[Gradients]


class SideBySide:
    """Runs forward passes before their gradients are read, and backward passes in threads and in this one."""

    def __init__(
        self, n: int, model: nn.Module, parameters: Sequence[Tensor], forward: Callable[[int], Forward]
    ) -> None:
        """Start without any pass.

        Args:
            n: how many backward passes run at once, at least 2.
            model: the model.
            parameters: those whose gradients are computed.
            forward: runs the forward pass of the worker of a rank.
        """
        self._n, self._model, self._parameters, self._forward = n, model, parameters, forward
        self._norm_of = {
            id(buffer): module for module in model.modules() if type(module) in _NORMS for buffer in module.buffers()
        }
        self._threads = ThreadPoolExecutor(n - 1, thread_name_prefix="laconic-backward")
        self._begun: dict[int, _Begun] = {}  # by rank, in rank order
        self._coming: Iterator[int] = iter(())

    def __deepcopy__(self, memo: dict[int, Any]) -> "SideBySide":
        """Return one with threads of its own, for the copy of the model."""
        return SideBySide(self._n, *deepcopy((self._model, self._parameters, self._forward), memo))

    def take(self, rank: int, present: Callable[[], Sequence[int]]) -> tuple[Forward, Gradients]:
        """Return what the passes of a worker have left, its gradients last.

        Args:
            rank: the worker's rank.
            present: returns the ranks of this round. Each is taken once, in this order, unless the round is repeated.

        Raises:
            RuntimeError: a parameter has hooks that would not run, or a later forward pass has changed what this
                worker's backward pass reads.
        """
        try:
            if rank not in self._begun:
                self.drop()
                self._refuse_hooks()
                ranks = present()
                self._coming = iter(ranks[ranks.index(rank) :])
            self._run_forward()
            begun = self._begun[rank]
            while not begun.gradients.done() and self._compute_one():
                pass
            gradients = begun.gradients.result()
        except BaseException as error:
            self.drop()
            if isinstance(error, RuntimeError) and _CHANGED in str(error):
                raise RuntimeError(
                    f"side_by_side={self._n}: a backward pass reads a buffer or parameter that the next worker's "
                    "forward pass has changed, so the passes cannot run side by side; leave it at 1"
                ) from error
            raise
        del self._begun[rank]
        return begun.forward, gradients

    def load(self, buffer: Tensor, values: Tensor) -> None:
        """Give a buffer of the model a worker's values. Autograd refuses a backward pass that still reads others."""
        norm = self._norm_of.get(id(buffer))
        if norm is not None and norm.training:
            buffer.data.copy_(values)  # as a new version it would be refused, though no such pass reads it
        elif not torch.equal(buffer, values):
            buffer.copy_(values)

    def drop(self) -> None:
        """Wait for the passes that are running, and forget all."""
        begun, self._begun, self._coming = self._begun, {}, iter(())
        for gradients in [each.gradients for each in begun.values() if not each.gradients.cancel()]:
            gradients.exception()

    def _refuse_hooks(self) -> None:
        if any(map(has_gradient_hooks, self._parameters)):
            raise RuntimeError(
                f"side_by_side={self._n}: hooks of register_post_accumulate_grad_hook would not run, since several "
                "workers' gradients of a parameter are computed at once; leave it at 1"
            )

    def _run_forward(self) -> None:
        """Run forward passes until those of the next `n` workers are done."""
        while len(self._begun) <= self._n and (rank := next(self._coming, None)) is not None:
            with torch.autograd.graph.disable_saved_tensors_hooks(
                f"side_by_side={self._n}: hooks of saved tensors, such as those of checkpointing, run in the backward "
                "pass and may draw random numbers; leave it at 1"
            ):
                forward = self._forward(rank)
            gradients = self._threads.submit(self._gradients_of, forward.loss)
            self._begun[rank] = _Begun(forward=forward, gradients=gradients)

    def _compute_one(self) -> bool:
        """Compute gradients that no thread has begun with, those needed last. Returns whether there were any."""
        for each in reversed(self._begun.values()):
            if each.gradients.cancel():
                each.gradients = Future()
                each.gradients.set_result(self._gradients_of(each.forward.loss))
                return True
        return False

    def _gradients_of(self, loss: Tensor) -> Gradients:
        return torch.autograd.grad(loss, self._parameters, allow_unused=True)
