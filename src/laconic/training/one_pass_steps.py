"""Steps of plain SGD along a mean of packets: one pass over packets and parameters, to the bits of a mean and a step.

Bounds on the packets' numbers and on the parameters' show that the result is finite, so that nothing looks for it.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Protocol, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.errors import NonFiniteError
from laconic.kernels.api import absolute_maximum, gather_mean_step, slice_tensors, step_along_mean
from laconic.protocol.landing import Write
from laconic.torch_compat import note_step
from laconic.training.active_parameters import ActiveParameters
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import is_fused, is_vanilla_sgd
from laconic.training.step_guard import LARGE

_ROUNDING = 1 + 2**-20  # of a step, at most


class Held(Protocol):
    """What compares the user's parameters with the model that a server holds."""

    flat: FlatParameters
    """The user's parameters, which are the model's between two rounds unless the user has loaded others."""
    is_known: bool
    """Whether those count then."""


@final
class MeanSteps:
    """Steps a model whose parameters are views of one vector. It is an `OnePassSteps`.

    A step that begins while packets come is written over the model, whose values the user's parameters have; or, where
    those may be others, to a second vector, which is the model's once the step has ended.
    """

    def __init__(
        self,
        inner: Optimizer,
        flat: FlatParameters,
        values: Tensor,
        active: ActiveParameters,
        learning_rates: LearningRates,
    ) -> None:
        """Set up the steps.

        Args:
            inner: the user's optimizer, of which the model's is a copy.
            flat: the model's parameters.
            values: the vector (d,) of which they are views.
            active: those that take part in a round.
            learning_rates: those of `inner`.
        """
        self._inner, self._flat = inner, flat
        self.values = values
        """The vector (d,) of which the parameters are views now."""
        self._active, self._learning_rates = active, learning_rates
        self._starts = [*accumulate(flat.sizes, initial=0)]  # of the parameters in the vector
        self._largest: float | None = None  # a bound on the magnitudes in `values`, if one is known
        self.held: Held | None = None
        """Has the user's parameters, from which a step may begin before all packets are there; else None."""
        self._is_open = False  # whether a step has begun; `values` may lack the model, which the user's parameters have
        self._other: Tensor | None = None  # (d,), which the model steps to where no one has the user's parameters
        self._lrs: Sequence[float] = ()  # of the step that has begun

    def begin(self) -> tuple[Tensor, Write] | None:
        """See `OnePassSteps`. A step that is taken back leaves what the user's parameters are."""
        self.take_back()
        held = self.held
        flat, out = (self._flat, self._vector_to_step_to()) if held is None else (held.flat, self.values)
        if not (flat.are_plain and self.are_taken()) or (held is not None and not held.is_known):
            return None
        lrs = self._lrs = self._learning_rates.by_group()
        self._is_open = True

        def write(parts: Sequence[Tensor], start: int, stop: int) -> tuple[float, int]:
            tensors, groups = self._between(flat, start, stop)
            factors = [-lrs[group] for group in groups]
            return gather_mean_step(tensors, factors, parts, out[start:stop], divisor=len(parts))

        return out, write

    def _between(self, flat: FlatParameters, start: int, stop: int) -> tuple[list[Tensor], list[int]]:
        """Return the parameters' elements start .. stop - 1 as tensors, and the group of each."""
        few = slice(bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop))
        before = self._starts[few.start]
        tensors = slice_tensors(flat.parameters[few], start - before, stop - before)
        return tensors, [group for group, size in zip(flat.groups[few], flat.sizes[few], strict=True) if size]

    def _vector_to_step_to(self) -> Tensor:
        if self._other is None:
            self._other = torch.empty_like(self.values)
        return self._other

    def is_begun(self) -> bool:
        """See `OnePassSteps`."""
        return self._is_open and self.are_taken() and self._lrs == self._learning_rates.by_group()

    def end(self, largest: float) -> None:
        """See `OnePassSteps`."""
        if not math.isfinite(largest):
            raise NonFiniteError
        if self.held is None and self._other is not None:
            self.values, self._other = self._other, self.values
            self._flat.move_to(self.values)
        self._is_open, self._largest = False, largest
        note_step(self._inner)  # it never steps itself

    def take_back(self) -> None:
        """Take a step back that has begun and did not end."""
        if self._is_open and self.held is not None:
            self.held.flat.values(out=self.values)
            self._largest = None
        self._is_open = False

    def are_taken(self) -> bool:
        """See `OnePassSteps`."""
        return (
            self._active.all_active and is_vanilla_sgd(self._inner) and not any(map(is_fused, self._inner.param_groups))
        )

    def along_mean(self, vectors: Sequence[Tensor], largest: float) -> tuple[Tensor, float] | None:
        """See `OnePassSteps`."""
        self.take_back()
        lrs = self._learning_rates.by_group()
        if not self.are_taken() or not largest * max(1.0, *lrs) <= LARGE:
            return None
        if self._largest is None or self._largest > LARGE:
            self._largest = absolute_maximum(self.values)
        if not self._largest <= LARGE:
            return None
        start = 0
        for lr, run in groupby(zip(self._flat.groups, self._flat.sizes, strict=True), key=lambda one: lrs[one[0]]):
            stop = start + sum(size for _, size in run)
            parts = [vector[start:stop] for vector in vectors]
            step_along_mean(self.values[start:stop], parts, divisor=len(parts), lr=lr)
            start = stop
        self._largest = (self._largest + max(lrs) * largest) * _ROUNDING
        note_step(self._inner)  # it never steps itself
        return self.values, self._largest

    def forget(self) -> None:
        """Take note that the model is changed in another way."""
        self.take_back()
        self._largest = None
