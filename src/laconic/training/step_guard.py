"""A step of an optimizer that leaves no inf behind: where numbers are large, one that overflows is taken back."""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.kernels.api import absolute_maximum
from laconic.training.flat_parameters import FlatParameters

LARGE = 2.0**60  # its square is finite in float32; an Adam keeps squares


class StepGuard:
    """Takes an optimizer's steps. Only while its gradients or its state are large does that cost anything."""

    def __init__(self) -> None:
        self._is_watching = False

    def step(
        self, optimizer: Optimizer, flat: FlatParameters, largest: float, take: Callable[[Optimizer], object]
    ) -> bool:
        """Take one step, unless it leaves inf or NaN in the parameters or in the optimizer's state.

        Args:
            optimizer: the optimizer.
            flat: its parameters, with their gradients.
            largest: the largest magnitude in the gradients.
            take: takes a step of the optimizer.

        Returns:
            Whether it was taken. If not, parameters and state are as before.
        """
        if not self._is_watching and not may_overflow(optimizer, largest):
            take(optimizer)
            return True
        values, state = flat.values(), {key: deepcopy(value) for key, value in optimizer.state.items()}
        take(optimizer)
        after = _largest_of(optimizer, flat)
        self._is_watching = not after <= LARGE
        if math.isfinite(after):
            return True
        flat.set_values(values)
        optimizer.state.clear()  # others hold this dictionary
        optimizer.state.update(state)
        return False


def may_overflow(optimizer: Optimizer, largest: float) -> bool:
    """Return whether a step along gradients with magnitudes up to `largest` may leave inf; NaN may."""
    lr = max(float(group.get("lr", 0.0)) for group in optimizer.param_groups)
    return not largest * max(1.0, lr) <= LARGE


def _largest_of(optimizer: Optimizer, flat: FlatParameters) -> float:
    """Return the largest magnitude in parameters and state; NaN if there is one."""
    states = (value for state in optimizer.state.values() for value in state.values())
    tensors = [each for each in (*flat.parameters, *states) if isinstance(each, Tensor) and each.is_floating_point()]
    found = [absolute_maximum(each.detach().reshape(-1)) for each in tensors if each.layout is torch.strided]
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)
