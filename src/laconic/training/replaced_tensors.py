"""Tensors that a user replaces or overwrites between two steps: loaded weights, `.to()`, layers tied again.

Every step reads the parameters where they are then, so values that changed in place count by themselves. What the
optimizer would not see is refused, and the model that a server holds takes new weights up.
"""

from collections.abc import Callable
from operator import is_
from typing import Protocol

import torch
from torch import Tensor

from laconic.training.flat_parameters import FlatParameters
from laconic.training.server_model import ServerModel


class TakesValues(Protocol):
    """A copy of the model that is not the user's."""

    def take(self, values: Tensor) -> None:
        """Go on from these parameters (d,)."""


class ReplacedTensors:
    """Looks whether the model still has the tensors that the optimizer trains, where they were and as they were."""

    def __init__(self, flat: FlatParameters, model: torch.nn.Module | None) -> None:
        """Note the tensors of now."""
        self._flat = flat
        names = {id(parameter): name for name, parameter in zip(flat.names, flat.parameters, strict=True)}
        found = [] if model is None else [
            (module._parameters, key, names[id(parameter)])
            for module in model.modules()
            for key, parameter in module._parameters.items()
            if id(parameter) in names
        ]  # fmt: skip
        self._owners, self._keys = [owner for owner, _, _ in found], [key for _, key, _ in found]
        self._names = [name for _, _, name in found]
        self._expected = [owner[key] for owner, key, _ in found]
        self._kinds = [_kind(parameter) for parameter in flat.parameters]
        self._at = [*map(Tensor.data_ptr, flat.parameters)]

    def check(self) -> None:
        """Raise RuntimeError, naming the parameter, for one that the optimizer does not train any more."""
        if not all(map(is_, map(dict.get, self._owners, self._keys), self._expected)):
            self._refuse_other()
        at = [*map(Tensor.data_ptr, self._flat.parameters)]
        if at != self._at:
            self._refuse_changed()
            self._at = at

    def _refuse_other(self) -> None:
        for owner, key, name, expected in zip(self._owners, self._keys, self._names, self._expected, strict=True):
            if owner.get(key) is not expected:
                raise RuntimeError(
                    f"parameter {name!r}: the model has another tensor than the one that the optimizer trains, because "
                    "of load_state_dict(..., assign=True), a layer that was tied again, or .to(); do that before the "
                    f"optimizer is made, or make that anew and {self._flat.door.anew}"
                )

    def _refuse_changed(self) -> None:
        for name, parameter, kind in zip(self._flat.names, self._flat.parameters, self._kinds, strict=True):
            if _kind(parameter) != kind:
                raise RuntimeError(
                    f"parameter {name!r} was {_shown(kind)} when the ranks agreed on the model, and now is "
                    f"{_shown(_kind(parameter))}; {self._flat.door.anew} after such a change"
                )


def _none() -> None:
    """Return that there is none."""


class HeldModel:
    """Takes weights that a user loads after wrapping up into the model that a server holds."""

    def __init__(self, flat: FlatParameters, *held: TakesValues, equal: Callable[[], Tensor | None] = _none) -> None:
        """Follow the user's parameters.

        Args:
            flat: the user's parameters.
            held: the copies that must follow them.
            equal: returns the memory of a copy, (d,), if it has the same values as the user's parameters after each
                step; else None.
        """
        self.flat = flat
        """The user's parameters."""
        self._held = held
        self._equal = equal
        self.shows: ServerModel | None = None
        """The held model, if the user's gets its values after each step."""
        self._copied = flat.values() if equal() is None else None
        self.is_known = True
        """Whether the user's parameters count, if they are others now."""

    @property
    def _seen(self) -> Tensor:
        """The user's parameters after the last step, (d,)."""
        seen = self._equal() if self._copied is None else self._copied
        assert seen is not None, "a copy or the other one"
        return seen

    def take_up(self) -> None:
        """Before a step: take the user's parameters up if they are others than after the last one."""
        if self.is_known and not self.flat.equals(self._seen):
            values = self.flat.values()
            for each in self._held:
                each.take(values)

    def end_step(self) -> None:
        """After a step: what the parameters are now is no user's doing."""
        self.is_known = True
        if self._copied is not None:
            shown = self.flat if self.shows is None else self.shows.flat
            shown.values(out=self._copied)
        if self.shows is not None:
            self.flat.set_values(self._seen)

    def forget(self) -> None:
        """Let the held model count at the next step, whatever weights are loaded before it: it was loaded itself."""
        self.is_known = False


def _kind(parameter: Tensor) -> tuple[torch.dtype, torch.device, torch.layout, torch.Size]:
    return parameter.dtype, parameter.device, parameter.layout, parameter.shape


def _shown(kind: tuple[torch.dtype, torch.device, torch.layout, torch.Size]) -> str:
    dtype, device, layout, shape = kind
    return f"{dtype} of shape {tuple(shape)} on {device}" + ("" if layout == torch.strided else f", {layout}")
