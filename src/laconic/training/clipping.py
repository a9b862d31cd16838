"""Clipping of the gradient that the inner optimizer is about to apply.

Users call `clip_grad_norm_` between backward and step. There, each rank still has its own gradient. What they mean is
the gradient that is applied: the exchanged direction, or each local step's own gradient where steps are local.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from laconic.contract import Algorithm
from laconic.training.flat_parameters import FlatParameters


@dataclass(frozen=True, kw_only=True)
class Clipping:
    """By norm as `torch.nn.utils.clip_grad_norm_`, or by value as `clip_grad_value_`: the same bits."""

    norm: float | None
    value: float | None
    order: Sequence[int]
    """The places of the parameters in the order of the model: the norm is added up in it."""
    over_shards: Callable[[Tensor], Tensor] | None = None
    """Returns the norm of what all shards of a model hold, given that of this one; None if there are none."""

    def clip_in_place(self, gradients: Sequence[Tensor | None]) -> None:
        """Clip the gradients of all parameters, given in their order, in place; None where one has none."""
        used = [gradient for place in self.order if (gradient := gradients[place]) is not None]
        if self.value is not None:
            for gradient in used:
                gradient.clamp_(-self.value, self.value)
        if self.norm is not None:
            factor = self.norm / (self._total(used) + 1e-6)
            if factor < 1:
                for gradient in used:
                    gradient.mul_(factor)

    def _total(self, gradients: Sequence[Tensor]) -> Tensor:
        own = _norm_of(gradients)
        return own if self.over_shards is None else self.over_shards(own)

    def clip(self, parameters: Sequence[Tensor]) -> None:
        """Clip the gradients of all parameters that have one. They are replaced; methods may hold the old tensors."""
        used = [parameters[place] for place in self.order if parameters[place].grad is not None]
        gradients = [parameter.grad for parameter in used if parameter.grad is not None]
        if self.value is not None:
            for parameter, gradient in zip(used, gradients, strict=True):
                parameter.grad = gradient.clamp(-self.value, self.value)
        if self.norm is not None:
            factor = self.norm / (self._total(gradients) + 1e-6)
            if factor < 1:
                for parameter, gradient in zip(used, gradients, strict=True):
                    parameter.grad = gradient * factor


def _norm_of(gradients: Sequence[Tensor]) -> Tensor:
    total = get_total_norm(gradients)
    if not bool(torch.isfinite(total)):  # the squares of finite elements may overflow
        total = get_total_norm([gradient.double() for gradient in gradients])
    return total


def clipping_of(
    clip_norm: float | None,
    clip_value: float | None,
    algorithm: Algorithm,
    flat: FlatParameters,
    model: torch.nn.Module | None,
    over_shards: Callable[[Tensor], Tensor] | None = None,
) -> Clipping | None:
    """Return what clips the gradients of `flat`, or None if neither number is given.

    Raises:
        TypeError: for what is no number.
        ValueError: for one that is not finite and above 0, for both, or for a method in which no gradient is applied.
    """
    given = {"clip_norm": clip_norm, "clip_value": clip_value}
    for name, number in given.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(f"{name}={number!r:.80} must be a number above 0; None clips nothing")
        if not 0 < number < math.inf:
            raise ValueError(f"{name}={number!r} must be a finite number above 0; None clips nothing")
    if clip_norm is None and clip_value is None:
        return None
    if clip_norm is not None and clip_value is not None:
        raise ValueError(f"clip_norm={clip_norm} and clip_value={clip_value}: give one, as the order would matter")
    if algorithm.consumes == "gradient" and algorithm.returns == "parameters" and not algorithm.server_steps:
        name = next(name for name, number in given.items() if number is not None)
        raise ValueError(f"{name}: {algorithm.name} returns parameters, so no optimizer applies a gradient to clip")
    place_of = {id(parameter): place for place, parameter in enumerate(flat.parameters)}
    listed = [] if model is None else [place_of[id(p)] for p in model.parameters() if id(p) in place_of]
    elsewhere = sorted({*range(len(flat.parameters))}.difference(listed))
    return Clipping(
        norm=None if clip_norm is None else float(clip_norm),
        value=None if clip_value is None else float(clip_value), order=[*listed, *elsewhere],
        over_shards=over_shards,
    )  # fmt: skip
