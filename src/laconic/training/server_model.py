"""The server's own model, for methods in which the server applies the updates."""

import copy
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self
from weakref import proxy

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.buffer_pool import new_vector
from laconic.contract import Algorithm, check_vector
from laconic.drivers.saved_data import check_mapping
from laconic.kernels.api import absolute_maximum
from laconic.protocol.server import ServerSession
from laconic.torch_compat import note_step, step_unobserved
from laconic.training.active_parameters import ActiveParameters
from laconic.training.clipping import Clipping
from laconic.training.flat_parameters import FlatParameters
from laconic.training.learning_rates import LearningRates
from laconic.training.one_pass_steps import Held, MeanSteps
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
        *,
        lends: bool = False,
    ) -> None:
        """Copy the user's optimizer.

        Args:
            inner: the user's optimizer.
            active: the parameters that change at a step.
            learning_rates: those of the user's optimizer.
            clipping: what clips a direction before it is applied.
            lends: whether `descend` may return the model's own memory, which the next step changes: for a driver that
                has sent it by then.
        """
        self._inner = inner
        self._active = active
        self._learning_rates = learning_rates
        self._clipping = clipping
        self.optimizer = copy.deepcopy(inner)
        self.optimizer.step = partial(step_unobserved, self.optimizer)  # type: ignore[assignment, method-assign]
        self.flat = FlatParameters(self.optimizer)
        self._vector = self.flat.as_one_vector() if lends else None
        self._guard = StepGuard()
        self.one_pass: MeanSteps | None = None
        """Takes steps in one pass, if `descend` returns the model's own memory."""
        if self._vector is not None and clipping is None:
            self.one_pass = MeanSteps(inner, self.flat, self._vector, active, learning_rates)

    def own_vector(self) -> Tensor | None:
        """Return the model's own memory, (d,), if that is what `descend` returns: until the next step."""
        return self._vector if self.one_pass is None else self.one_pass.values

    @classmethod
    def lending(
        cls,
        algorithm: Algorithm,
        inner: Optimizer,
        active: ActiveParameters,
        learning_rates: LearningRates,
        clipping: Clipping | None,
    ) -> Self | None:
        """Return a model that `lends` its memory, for a method whose server steps; None for another."""
        return cls(inner, active, learning_rates, clipping, lends=True) if algorithm.server_steps else None

    def _take_options(self) -> None:
        """Take over the current options of the user's optimizer."""
        for source, own in zip(self._inner.param_groups, self.optimizer.param_groups, strict=True):
            own.update({key: value for key, value in source.items() if key != "params"})

    def step_for(self, servers: Iterable[ServerSession], held: Held | None = None) -> None:
        """Step in one pass over the packets of these servers, where that is possible.

        Args:
            servers: the servers that this model belongs to.
            held: has the user's parameters, if those are this model's between two rounds: then a step may begin before
                all packets are there.
        """
        for server in servers:
            server.steps = self.one_pass
        if self.one_pass is not None:
            self.one_pass.held = None if held is None else proxy(held)  # which holds the driver, and so these servers

    def take(self, values: Tensor) -> None:
        """Go on from these parameters (d,), such as weights that a user has loaded."""
        if self.one_pass is not None:
            self.one_pass.forget()
        self.flat.set_values(values)

    def saved(self) -> dict[str, Any]:
        """Return the parameters and the optimizer's state."""
        if self.one_pass is not None:
            self.one_pass.take_back()
        self._take_options()
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
        if self.one_pass is not None:
            self.one_pass.forget()
        self.flat.set_values(saved["values"])
        if saved["optimizer"] is not None:
            self.optimizer.load_state_dict(saved["optimizer"])

    def descend(self, direction: Tensor, largest: float | None = None) -> Tensor:
        """Take one step of the optimizer along `direction` (d,), whose `largest` magnitude may be known.

        Returns the parameters, (d,).

        The options (such as the learning rate) are the current ones of the user's optimizer. For a direction with inf
        or NaN, or one whose step would leave inf or NaN in the parameters or in the optimizer's state, it takes no step
        and returns NaN, which aborts the round. Where the model `lends` its memory, the next step changes the result.
        """
        if self.one_pass is not None:
            self.one_pass.forget()
        largest = absolute_maximum(direction) if largest is None else largest
        if not math.isfinite(largest):
            return torch.full_like(direction, torch.nan)
        self._take_options()
        self.flat.set_gradients(direction.to(self.flat.device), self._active.now)
        if self._clipping is not None:
            self._clipping.clip(self.flat.parameters)
        if not self._guard.step(self.optimizer, self.flat, largest, self._learning_rates.step):
            return torch.full_like(direction, torch.nan)
        note_step(self._inner)  # the user's optimizer never steps itself
        own = self.own_vector()
        if own is not None:
            return own
        return self.flat.values(out=new_vector(self.flat.d, self.flat.dtype, self.flat.device)).to(direction.device)
