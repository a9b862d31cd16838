"""The server's own model, for methods in which the server applies the updates."""

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.buffer_pool import new_vector
from laconic.contract import check_vector
from laconic.drivers.saved_data import check_mapping
from laconic.kernels.api import absolute_maximum
from laconic.torch_compat import note_step, step_unobserved
from laconic.training.active_parameters import ActiveParameters
from laconic.training.clipping import Clipping
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.state_dict import InnerLoad
from laconic.training.step_guard import StepGuard


class ServerModel:
    """The server's own parameters and its own copy of the user's optimizer."""

    def __init__(
        self,
        inner: Optimizer,
        active: ActiveParameters,
        learning_rates: LearningRates,
        clipping: Clipping | None,
    ) -> None:
        """Copy the user's optimizer.

        Args:
            inner: the user's optimizer.
            active: the parameters that change at a step.
            learning_rates: those of the user's optimizer.
            clipping: what clips a direction before it is applied.
        """
        self._inner = inner
        self._active = active
        self._learning_rates = learning_rates
        self._clipping = clipping
        self.optimizer = copy.deepcopy(inner)
        self.optimizer.step = partial(step_unobserved, self.optimizer)  # type: ignore[assignment, method-assign]
        self.flat = FlatParameters(self.optimizer)
        self._guard = StepGuard()

    def take(self, values: Tensor) -> None:
        """Go on from these parameters (d,), such as weights that a user has loaded."""
        self.flat.set_values(values)

    def saved(self) -> dict[str, Any]:
        """Return the parameters and the optimizer's state."""
        return {"values": self.flat.values(), "optimizer": self.optimizer.state_dict()}

    def check(self, saved: Mapping[str, Any]) -> None:
        """Raise ValueError if saved parameters are not those of this model, or its optimizer cannot load its state."""
        check_mapping("the part 'server_model'", saved)
        check_vector("the server's model", saved["values"], self.flat.values())
        if saved["optimizer"] is not None:
            check_mapping("the server's optimizer", saved["optimizer"])
            trial = InnerLoad(self.optimizer)
            trial.load(saved["optimizer"])
            trial.undo()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `saved` returned."""
        self.flat.set_values(saved["values"])
        if saved["optimizer"] is not None:
            self.optimizer.load_state_dict(saved["optimizer"])

    def descend(self, direction: Tensor) -> Tensor:
        """Take one step of the optimizer along `direction` (d,); returns the parameters, (d,).

        The options (such as the learning rate) are the current ones of the user's optimizer. For a direction with inf
        or NaN, or one whose step would leave inf or NaN in the parameters or in the optimizer's state, it takes no step
        and returns NaN, which aborts the round.
        """
        largest = absolute_maximum(direction)
        if not math.isfinite(largest):
            return torch.full_like(direction, torch.nan)
        for source, own in zip(self._inner.param_groups, self.optimizer.param_groups, strict=True):
            own.update({key: value for key, value in source.items() if key != "params"})
        self.flat.set_gradients(direction.to(self.flat.device), self._active.now)
        if self._clipping is not None:
            self._clipping.clip(self.flat.parameters)
        if not self._guard.step(self.optimizer, self.flat, largest, self._learning_rates.step):
            return torch.full_like(direction, torch.nan)
        note_step(self._inner)  # the user's optimizer never steps itself
        return self.flat.values(out=new_vector(self.flat.d, self.flat.dtype, self.flat.device)).to(direction.device)
