"""A second evaluation of a mini-batch, without side effects on random streams and buffers.

A method that evaluates twice must leave both as one evaluation would. What the user's closure keeps elsewhere cannot be
put back, so users are told.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract import Algorithm
from laconic.protocol.round_inputs import VectorSource
from laconic.training.flat_parameters import FlatParameters


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The state of Python's, numpy's and torch's random streams, and of a model's buffers."""

    python: Any
    numpy: Any
    cpu: Tensor
    gpus: list[Tensor]
    buffers: list[Tensor]

    @classmethod
    def of(cls, buffers: Iterable[Tensor]) -> Self:
        """Copy their current state."""
        gpus_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        return cls(
            python=random.getstate(), numpy=np.random.get_state(), cpu=torch.get_rng_state(),
            gpus=torch.cuda.get_rng_state_all() if gpus_in_use else [],
            buffers=[buffer.clone() for buffer in buffers],
        )  # fmt: skip

    def put_back(self, buffers: Iterable[Tensor]) -> None:
        """Restore the copied state."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(self.gpus)
        for buffer, saved in zip(buffers, self.buffers, strict=True):
            buffer.copy_(saved)


class SecondGradient:
    """The gradient of the same mini-batch at other parameters. Make it before the original evaluation."""

    def __init__(
        self,
        flat: FlatParameters,
        evaluate: Callable[[], object],
        buffers: Callable[[], Iterable[Tensor]],
        pool: VectorPool,
    ) -> None:
        """Copy the state of streams and buffers.

        Args:
            flat: the model's parameters.
            evaluate: runs the forward and backward passes of the mini-batch.
            buffers: returns the model's buffers of now; an evaluation may replace them by others of their shapes.
            pool: where a vector (d,) is borrowed from during a call.
        """
        self._flat = flat
        self._evaluate = evaluate
        self._buffers = buffers
        self._pool = pool
        self._before = Surroundings.of(buffers())

    def __call__(self, parameters: Tensor) -> VectorSource:
        """Evaluate the mini-batch at `parameters` (d,); returns where to read the gradient (d,).

        It uses the same random numbers as the original evaluation, and leaves parameters, gradients, buffers and
        streams as that did.
        """
        buffers = list(self._buffers())  # which walks all modules
        after = Surroundings.of(buffers)
        self._before.put_back(buffers)
        here, own = self._flat.values(out=self._pool.take()), [parameter.grad for parameter in self._flat.parameters]
        self._flat.set_values(parameters)
        self._flat.drop_gradients()  # so that the evaluation does not change the original gradient
        with torch.enable_grad():
            self._evaluate()
        self._flat.make_dense()
        gradient = self._flat.gradient_source()
        after.put_back(self._buffers())
        self._flat.set_values(here)
        self._pool.give([here])
        for parameter, original in zip(self._flat.parameters, own, strict=True):
            parameter.grad = original
        return gradient


def called_twice(algorithm: Algorithm) -> str:
    """Return what users of a method with `second_gradient` are told; empty for other methods."""
    if not algorithm.second_gradient:
        return ""
    return (
        f"{algorithm.name}: a step may evaluate its mini-batch twice, at two points. Parameters, gradients, random "
        "streams and the model's buffers are put back in between. Any other state that the evaluation changes (a "
        "hidden state, a counter, an iterator) moves twice: take the mini-batch before the step, and keep such a state "
        "in a buffer of the model (register_buffer)"
    )


def why_a_closure(algorithm: Algorithm, *, may_wait: bool) -> str:
    """Return why `step` of this method needs a closure, for the error of a call without one."""
    why = "with max_staleness may make this worker wait before it computes"
    if not may_wait:
        why = "evaluates the mini-batch at two points"
    return (
        f"{algorithm.name} {why}, so step() needs a closure: "
        "def closure(): opt.zero_grad(); loss = loss_of(batch); loss.backward(); return loss"
    )
