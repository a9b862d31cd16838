"""Several steps of the inner optimizer between two exchanges, for every method that admits them.

A method that consumes a gradient gets -(change) / lr instead, and its result is applied as plain SGD would:
x - lr * direction. With one step of plain SGD per exchange, that is the gradient itself. Where the last local step has
rate 0, lr is the last rate before it that was not, so that the change of the earlier steps is not lost.

Conversely, one step of plain SGD changes the parameters by -lr times the gradient. A method that consumes a change
gets that, and the step is not taken, so that no parameters have to be copied before it and restored after it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from laconic.contract import Algorithm, InParts, Result
from laconic.errors import Named, OptionError
from laconic.hyperparameters import is_number
from laconic.torch_compat import has_step_hooks, note_step, step_is_replaced
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.vector_sources import ChangeByStep, ChangeOfStep, ChangeSince


def check_local_steps(algorithm: Algorithm, local_steps: int) -> None:
    """Raise TypeError or ValueError for a wrong number of steps, or one that the method does not admit."""
    if not is_number(local_steps, int):
        raise TypeError(f"local_steps={local_steps!r} must be a whole number, at least 1")
    if local_steps < 1:
        raise OptionError(Named("local_steps", local_steps), " must be at least 1; 1 exchanges after every step")
    if local_steps > 1 and not algorithm.takes_changes:
        raise OptionError(
            Named("local_steps", local_steps),
            f": {algorithm.name} needs the gradient itself, not what several steps changed; leave ",
            Named("local_steps"),
            " at 1",
        )


class LocalSteps:
    """The number of local steps per exchange, and the arithmetic between changes and gradients."""

    def __init__(
        self,
        algorithm: Algorithm,
        local_steps: int,
        flat: FlatParameters,
        learning_rates: LearningRates,
        inner: Optimizer,
    ) -> None:
        """Set up `local_steps` steps per exchange, which `check_local_steps` must admit."""
        self.many = local_steps
        self.are_taken = algorithm.consumes == "change" or local_steps > 1
        """Whether the inner optimizer steps before the exchange."""
        self.owns_model = False
        """Whether the model has the parameters of this process's worker, and of no other one."""
        self._inner = inner
        self._algorithm = algorithm
        self._flat = flat
        self._learning_rates = learning_rates

    def steps_in(self, round_: int) -> int:
        """Return the number of steps before this round's exchange; it is 1 in a dense warm-up."""
        return 1 if self._algorithm.dense_in(round_) else self.many

    def is_known_in(self, round_: int) -> bool:
        """Return whether the gradient gives the change before this round's exchange: one step of plain SGD."""
        algorithm = self._algorithm
        if algorithm.consumes != "change" or self.steps_in(round_) != 1 or not is_vanilla_sgd(self._inner):
            return False
        if algorithm.replicas_equal:
            return self._flat.has_own_dtype
        return self.owns_model and self._flat.are_plain and not any(map(is_fused, self._inner.param_groups))

    def descend(self, support: tuple[Tensor, Tensor] | None, active: Sequence[bool]) -> bool:
        """Take the inner optimizer's step along the gradients, to the bits of torch's SGD, without its many calls.

        Args:
            support: indices (k,) outside which the gradients are zero, and their elements there; None if not known.
            active: by parameter, whether it takes part.

        Returns:
            Whether it did: not where the optimizer would do more, or other, than x - lr g.
        """
        inner = self._inner
        if not self._flat.are_plain or False in active or not is_vanilla_sgd(inner):
            return False
        if inner.param_groups[0].get("fused"):
            return False
        lrs = self._learning_rates.by_group()
        if lrs[1:] and len(set(lrs)) > 1:
            return False
        if support is not None:
            self._flat.descend_at(*support, lrs[0])
        else:
            self._flat.descend(lrs[0])
        note_step(inner)
        return True

    def change_since(self, start: Tensor) -> ChangeSince:
        """Return where to read what the method consumes: the change since `start` (d,), or a gradient in its place."""
        is_change = self._algorithm.consumes == "change"
        return self._flat.change_since(start, None if is_change else -self._learning_rate(at_zero=1.0))

    def change_of_step(self, loss_scale: Tensor | None = None) -> ChangeOfStep | ChangeByStep:
        """Return where to read the change of one step of plain SGD along gradients multiplied by `loss_scale`.

        Where replicas differ, it has the bits that it has in the simulator, which takes the step: without a loss scale.
        """
        if not self._algorithm.replicas_equal:
            assert loss_scale is None, "the gradients were divided by it"
            return self._flat.change_by_step(self._learning_rates.by_group())
        scale = 1.0 if loss_scale is None else float(loss_scale)
        return self._flat.change_of_step([lr / scale for lr in self._learning_rates.by_group()])

    def apply(self, start: Tensor | None, result: Result, active: Sequence[bool]) -> None:
        """Apply the method's result to the parameters before the steps.

        Args:
            start: the parameters before the steps, (d,), which may be overwritten; None if no step was taken.
            result: what the method returned.
            active: by parameter, whether it changes; the others are set back to `start`.
        """
        flat = self._flat
        assert not isinstance(result, InParts), "no driver with local steps leaves an answer in packets"
        if not isinstance(result, Tensor):
            flat.set_sparse_sum(start, result.indices, result.values.dense(), active)
        elif self._algorithm.returns == "parameters":
            if all(active):
                flat.set_values(result)
            else:
                flat.set_active_values(flat.views(result), start, active)
        elif self._algorithm.consumes == "change":
            flat.set_sum(start, result, active)
        else:
            assert start is not None
            learning_rates = flat.views(self._learning_rate(at_zero=0.0).expand(flat.d))
            values = zip(flat.views(start), learning_rates, flat.views(result), strict=True)
            flat.set_active_values((old - learning_rate * by for old, learning_rate, by in values), start, active)

    def fits(self, result: Result, start: Tensor) -> bool:
        """Return whether what a result makes of the parameters at the start of the round, (d,), fits their type.

        Of a direction that the inner optimizer steps along, whether that is.
        """
        vector = result if isinstance(result, Tensor) else result.dense()
        if self._algorithm.consumes == "change" and self._algorithm.returns == "change":
            vector = start + vector
        elif self.are_taken and self._algorithm.returns == "direction":
            vector = start - self._learning_rate(at_zero=0.0) * vector
        views = zip(self._flat.parameters, self._flat.views(vector), strict=True)
        return all(bool(torch.isfinite(view.to(parameter.dtype)).all()) for parameter, view in views)

    def _learning_rate(self, *, at_zero: float) -> Tensor:
        """Return the learning rate of every parameter: one number if all groups share it, else (d,).

        Args:
            at_zero: what stands for a rate of 0, at which nothing has changed: 1 to divide by, 0 to multiply by.
        """
        learning_rates = [lr or at_zero for lr in self._learning_rates.of_round()]
        if len(set(learning_rates)) == 1:
            learning_rates = learning_rates[:1]
        of_group = torch.tensor(learning_rates, dtype=self._flat.dtype, device=self._flat.device)
        if len(learning_rates) == 1:
            return of_group[0]
        return of_group[self._flat.groups].repeat_interleave(torch.tensor(self._flat.sizes, device=self._flat.device))


def is_fused(group: Mapping[str, Any]) -> bool:
    """Return whether a step of a parameter group is torch's fused one, which rounds otherwise."""
    return bool(group.get("fused"))


def is_vanilla_sgd(inner: Optimizer) -> bool:
    """Return whether a step is x - lr g and nothing else."""
    if type(inner) is not SGD or has_step_hooks(inner) or step_is_replaced(inner):
        return False
    extra = 0.0
    for group in inner.param_groups:  # asked in every step
        extra = extra or group["momentum"] or group["weight_decay"] or group["maximize"]
    return not extra
