"""Steps of plain SGD along a mean of packets: one pass over packets and parameters, to the bits of a mean and a step.

Bounds on the packets' numbers and on the parameters' show that the result is finite, so that nothing looks for it.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, final

from torch import Tensor
from torch.optim import Optimizer

from laconic.kernels.api import absolute_maximum, step_along_mean
from laconic.torch_compat import note_step
from laconic.training.active_parameters import ActiveParameters
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.local_steps import is_vanilla_sgd
from laconic.training.step_guard import LARGE
from laconic.wire import Dense

_ROUNDING = 1 + 2**-20  # of a step, at most


@final
class MeanSteps:
    """Steps a model whose parameters are views of one vector. It is an `OnePassSteps`."""

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
        self._inner, self._flat, self._values = inner, flat, values
        self._active, self._learning_rates = active, learning_rates
        self._largest: float | None = None  # a bound on the magnitudes in `values`, if one is known

    def are_taken(self) -> bool:
        """See `OnePassSteps`."""
        return self._active.all_active and is_vanilla_sgd(self._inner) and not any(map(_is_fused, self._groups))

    def along_mean(self, vectors: Sequence[Tensor], largest: float) -> Dense | None:
        """See `OnePassSteps`."""
        lrs = self._learning_rates.by_group()
        if not self.are_taken() or not largest * max(1.0, *lrs) <= LARGE:
            return None
        if self._largest is None or self._largest > LARGE:
            self._largest = absolute_maximum(self._values)
        if not self._largest <= LARGE:
            return None
        start = 0
        for lr, run in groupby(zip(self._flat.groups, self._flat.sizes, strict=True), key=lambda one: lrs[one[0]]):
            stop = start + sum(size for _, size in run)
            parts = [vector[start:stop] for vector in vectors]
            step_along_mean(self._values[start:stop], parts, divisor=len(parts), lr=lr)
            start = stop
        self._largest = (self._largest + max(lrs) * largest) * _ROUNDING
        note_step(self._inner)  # it never steps itself
        return Dense(values=self._values).measured(self._largest)

    def forget(self) -> None:
        """Take note that the model is changed in another way."""
        self._largest = None

    @property
    def _groups(self) -> Sequence[Mapping[str, Any]]:
        return self._inner.param_groups


def _is_fused(group: Mapping[str, Any]) -> bool:
    return bool(group.get("fused"))  # which rounds otherwise
