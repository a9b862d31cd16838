"""The server's own model, for methods in which the server applies the updates."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.torch_compat import note_step
from laconic.training.flat_parameters import FlatParameters


class ServerModel:
    """The server's own parameters and its own copy of the user's optimizer."""

    def __init__(self, inner: Optimizer, active: Callable[[], Sequence[bool]]) -> None:
        """live: which parameters move, asked at each step."""
        self._inner = inner
        self._active = active
        self.optimizer = copy.deepcopy(inner)
        self.flat = FlatParameters(self.optimizer)

    def descend(self, direction: Tensor) -> Tensor:
        """One step of the optimizer along `direction` (d,); returns the parameters, (d,).

        The options (learning rate and so on) are those that the user's optimizer has now. A direction with inf or NaN
        makes no step and returns NaN, which calls the round off.
        """
        if not bool(torch.isfinite(direction).all()):
            return torch.full_like(direction, torch.nan)
        for source, own in zip(self._inner.param_groups, self.optimizer.param_groups, strict=True):
            own.update({key: value for key, value in source.items() if key != "params"})
        self.flat.set_gradients(direction.to(self.flat.device), self._active())
        self.optimizer.step()
        note_step(self._inner)  # it never steps itself
        return self.flat.values().to(direction.device)
