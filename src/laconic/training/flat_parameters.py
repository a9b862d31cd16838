"""The trainable parameters of an optimizer as one flat vector, in the order of its parameter groups."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor
from torch.optim import Optimizer

from laconic.buffer_pool import new_vector
from laconic.contract import InParts, ModelSpec
from laconic.drivers.distributed.door import door
from laconic.kernels.api import (
    CheckedTensors,
    absolute_maximum,
    add_at,
    add_into,
    descend,
    equals,
    gather,
    scatter,
    step_at,
)
from laconic.protocol.round_inputs import SharedVector
from laconic.torch_compat import add_to_each
from laconic.training.parameter_names import names_of
from laconic.training.vector_sources import ChangeByStep, ChangeOfStep, ChangeSince, Unscaled, VectorCopy

_MANY = 1 << 20  # from so many parameters on, one pass over all takes less time than torch's calls
_gradient_of: Callable[[Tensor], Tensor] = attrgetter("grad")


class FlatParameters:
    """Reads and writes gradients and values of all trainable parameters as vectors (d,).

    The vectors are float64 if a parameter is float64, and float32 otherwise.
    """

    def __init__(
        self, optimizer: Optimizer, model: torch.nn.Module | None = None, *, sparse_gradients: str = "refuse"
    ) -> None:
        """Collect the optimizer's trainable parameters, which `check_parameters` admits.

        Args:
            optimizer: the user's optimizer.
            model: gives the parameters' names; without it they are named by group and index.
            sparse_gradients: "refuse" or "dense".

        Raises:
            ValueError: for no trainable parameter, or mixed devices.
        """
        given = names_of(model)
        self._optimizer = optimizer
        self.door = door()
        """What the user has called."""
        self._n_listed = _n_listed_in(optimizer)
        self._sparse_to_dense = sparse_gradients == "dense"
        self.parameters: list[Tensor] = []
        self.names: list[str] = []
        self.groups: list[int] = []  # the number of each parameter's group
        self._frozen: list[tuple[str, Tensor]] = []
        self.is_named = True
        """Whether every parameter has the name that the model, or the optimizer's groups, give it."""
        for number, group in enumerate(optimizer.param_groups):
            in_group = group.get("param_names") or [f"group{number}.{place}" for place in range(len(group["params"]))]
            for name, parameter in zip(in_group, group["params"], strict=True):
                called = given.get(id(parameter), name)
                self.is_named &= id(parameter) in given or bool(group.get("param_names"))
                if parameter.requires_grad:
                    self.parameters.append(parameter)
                    self.names.append(called)
                    self.groups.append(number)
                else:
                    self._frozen.append((called, parameter))
        if not any(parameter.numel() for parameter in self.parameters):
            raise ValueError(f"{self.door.parameters}: no parameter requires a gradient, so there is nothing to train")
        self._refuse_mixed_devices()
        self.spec = ModelSpec(names=tuple(self.names), shapes=tuple(tuple(p.shape) for p in self.parameters))
        self.sizes, self.d = self.spec.sizes, self.spec.d
        self._checked = CheckedTensors(self.parameters)
        self.current = VectorCopy(self._checked)
        """Where to read the parameters."""
        self.device = self.parameters[0].device
        dtypes = {parameter.dtype for parameter in self.parameters}
        self.dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        self.has_own_dtype = dtypes == {self.dtype}
        """Whether all parameters have the dtype of the vectors."""
        self.are_plain = self.has_own_dtype and self.device.type == "cpu"
        """The same, and that they are in the CPU's memory."""

    def _refuse_mixed_devices(self) -> None:
        devices = [str(parameter.device) for parameter in self.parameters]
        if len(set(devices)) > 1:
            other = next(place for place, device in enumerate(devices) if device != devices[0])
            raise ValueError(
                f"{self.door.parameters}: parameters of mixed devices: {self.names[0]!r} is {devices[0]}, "
                f"{self.names[other]!r} is {devices[other]}; all must share one, for instance by model.to(device) "
                "before the optimizer is made"
            )

    @property
    def largest_value(self) -> float:
        """The largest number that every parameter's type holds."""
        return min(torch.finfo(parameter.dtype).max for parameter in self.parameters)

    def values(self, out: Tensor | None = None) -> Tensor:
        """Return a copy of the parameters, (d,), in `out` if it is given."""
        vector = torch.empty(self.d, dtype=self.dtype, device=self.device) if out is None else out
        gather(self._checked, vector)
        return vector

    def as_one_vector(self) -> Tensor | None:
        """Move the parameters into one vector (d,), of which they are views from now on, and return it.

        None where they are not all contiguous in the CPU's memory, and of the vectors' type.
        """
        if not self.has_own_dtype or self.device.type != "cpu" or not all(map(Tensor.is_contiguous, self.parameters)):
            return None
        vector = self.values_by_torch()
        self.move_to(vector)
        return vector

    def move_to(self, vector: Tensor) -> None:
        """Let the parameters be views of `vector` (d,), of their type, with the values that it has."""
        for parameter, view in zip(self.parameters, self.views(vector), strict=True):
            parameter.data = view.view_as(parameter)

    def shared(self) -> SharedVector:
        """Return where the workers of one round read the parameters, which are copied at most once."""
        return SharedVector(self.current, partial(new_vector, self.d, self.dtype, self.device))

    def equals(self, vector: Tensor) -> bool:
        """Return whether the parameters are those of `vector` (d,)."""
        return equals(self._checked, vector)

    def values_by_torch(self) -> Tensor:
        """Return the same without a kernel, which would have to be compiled first."""
        detached = (parameter.detach() for parameter in self.parameters)
        return torch.cat([tensor.reshape(-1).to(self.dtype) for tensor in detached])

    def change_since(self, start: Tensor, divisor: Tensor | None = None) -> "ChangeSince":
        """Return where to read the parameters - `start`, divided by `divisor`.

        Args:
            start: earlier parameters, (d,), or anything else to subtract.
            divisor: one number or (d,); None to divide by nothing.
        """
        return ChangeSince(self._checked, start, divisor)

    def change_of_step(self, learning_rates: Sequence[float]) -> "ChangeOfStep":
        """Return where to read the change by a step of plain SGD, -lr * gradient. `learning_rates`: by group."""
        return ChangeOfStep(self.gradient_tensors(), [-learning_rates[group] for group in self.groups])

    def change_by_step(self, learning_rates: Sequence[float]) -> "ChangeByStep":
        """Return where to read the same to the bits of a step that is taken, and subtracted."""
        return ChangeByStep(self._checked, self.gradient_tensors(), [-learning_rates[group] for group in self.groups])

    def set_values(self, vector: Tensor) -> None:
        """Overwrite the parameters by `vector` (d,), in place."""
        scatter(vector, self._checked)

    def views(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Return views of `vector` (d,), one for each parameter, in its shape."""
        return torch.split(vector, list(self.sizes))

    def set_active_values(self, values: Iterable[Tensor], start: Tensor | None, active: Sequence[bool]) -> None:
        """Overwrite active parameters by `values`, one tensor for each parameter, and inactive ones by `start` (d,).

        Without `start`, inactive parameters do not change. This also holds for the next two methods.
        """
        with torch.no_grad():
            for parameter, new, old, moves in zip(self.parameters, values, self._start(start), active, strict=True):
                parameter.copy_((new if moves else old).view_as(parameter))

    def set_sum(self, start: Tensor | None, change: Tensor, active: Sequence[bool]) -> None:
        """Overwrite active parameters by `start + change`, both (d,), and inactive ones by `start`."""
        with torch.no_grad():
            both = zip(self._start(start), self.views(change), strict=True)
            for parameter, (old, by), moves in zip(self.parameters, both, active, strict=True):
                if not moves:
                    parameter.copy_(old.view_as(parameter))
                elif parameter.dtype == self.dtype:
                    torch.add(old.view_as(parameter), by.view_as(parameter), out=parameter)
                else:
                    parameter.copy_(old.view_as(parameter) + by.view_as(parameter))

    def _start(self, start: Tensor | None) -> Sequence[Tensor]:
        return self.parameters if start is None else self.views(start)

    def set_sparse_sum(self, start: Tensor | None, positions: Tensor, values: Tensor, active: Sequence[bool]) -> None:
        """Do the same if only the elements at `positions` (k,) change, by `values` (k,). This overwrites `start`."""
        if not all(active):
            ends = torch.tensor(self.sizes, device=positions.device).cumsum(0)
            moves = torch.tensor(active, device=positions.device)[torch.bucketize(positions, ends, right=True)]
            positions, values = positions[moves], values[moves]
        if start is None:
            device = self.parameters[0].device
            add_into(self._checked, positions.to(device), values.to(device, self.dtype))
            return
        add_at(start, positions.to(start.device), values.to(start))
        if all(active):
            scatter(start, self._checked, as_sum=True)
        else:
            self.set_active_values((view + 0.0 for view in self.views(start)), start, active)

    def descend_at(self, indices: Tensor, values: Tensor, lr: float) -> None:
        """Take a step of plain SGD along a direction (d,) that is `values` (k,) at the indices, and zero elsewhere.

        The bits are those of torch's SGD, since this adds by the same operation.
        """
        step_at(self._checked, indices, values, factor=-lr)

    def descend(self, lr: float) -> None:
        """Take a step of plain SGD along the gradients, which all parameters have, by the operation of torch's SGD."""
        gradients = [*map(_gradient_of, self.parameters)]
        if self.d < _MANY:
            add_to_each(self.parameters, gradients, alpha=-lr)
        else:
            descend(self._checked, gradients, factor=-lr)

    def check_listed(self) -> None:
        """Raise RuntimeError if the optimizer has been given further parameters."""
        n_listed = 0
        for group in self._optimizer.param_groups:  # as `_n_listed_in`, at every step
            n_listed += len(group["params"])
        if n_listed != self._n_listed:
            raise RuntimeError(
                f"the optimizer has {n_listed} parameters and had {self._n_listed} when the ranks "
                f"agreed on what to train; each would train the new ones alone: {self.door.anew}"
            )

    def has_gradient(self) -> list[bool]:
        """Return, by parameter, whether it has a gradient now.

        Raises:
            TypeError: for a sparse gradient, unless they are made dense.
            RuntimeError: if a parameter was frozen at the start and now has a gradient.
        """
        for name, parameter in self._frozen:
            if parameter.grad is not None:
                raise RuntimeError(
                    f"parameter {name!r} was frozen when the ranks agreed on what to train, and now has a gradient "
                    f"that each would apply alone; {self.door.anew} after requires_grad_(True), or do so while all "
                    "are trainable and freeze later"
                )
        has_gradient: list[bool] = []
        for parameter in self.parameters:
            gradient = parameter.grad
            has_gradient += [gradient is not None]
            if gradient is not None and gradient.layout is not torch.strided:
                self.make_dense()
        return has_gradient

    def make_dense(self) -> None:
        """Make sparse gradients dense, or raise TypeError."""
        for name, parameter in zip(self.names, self.parameters, strict=True):
            gradient = parameter.grad
            if gradient is not None and gradient.layout is not torch.strided:
                if not self._sparse_to_dense:
                    raise TypeError(
                        f"parameter {name!r} has a sparse gradient; make its layer with sparse=False, or pass "
                        "sparse_gradients='dense'"
                    )
                parameter.grad = gradient.to_dense()

    def divide_gradients(self, scale: Tensor) -> None:
        """Divide every gradient by `scale`, in place."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad /= scale

    def largest_gradient(self) -> float:
        """Return the largest magnitude in all gradients; NaN if one of them has a NaN."""
        gradients = [parameter.grad for parameter in self.parameters]
        found = [absolute_maximum(gradient.reshape(-1)) for gradient in gradients if gradient is not None]
        return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)

    def gradient_source(self, loss_scale: Tensor | None = None) -> "VectorCopy | Unscaled":
        """Return where to read the gradients of now, divided by `loss_scale`, one number, if it is given."""
        tensors = self.gradient_tensors()
        return VectorCopy(tensors) if loss_scale is None else Unscaled(tensors, loss_scale)

    def gradient_tensors(self) -> list[Tensor]:
        """Return the gradient tensors, one for each parameter; a parameter without one counts as zero."""
        given: list[Tensor] = []
        for parameter in self.parameters:
            gradient = parameter.grad
            if gradient is None or gradient.requires_grad:
                break
            given += [gradient]
        else:
            return given  # as it mostly is
        return [
            torch.zeros_like(parameter)
            if gradient is None
            else gradient.detach()
            if gradient.requires_grad
            else gradient
            for parameter in self.parameters
            for gradient in (parameter.grad,)
        ]

    def drop_gradients(self) -> None:
        """Set the gradients of all parameters to None."""
        for parameter in self.parameters:
            parameter.grad = None

    def set_gradients(self, direction: Tensor | InParts, active: Sequence[bool]) -> None:
        """Set the parameters' gradients to `direction` (d,); those of inactive parameters become None."""
        views = direction.split_with_sizes(self.sizes) if type(direction) is Tensor else direction.split(self.sizes)
        if self.has_own_dtype and all(map(Tensor.is_contiguous, self.parameters)):
            shaped = map(Tensor.view_as, views, self.parameters)
        else:
            shaped = map(_as_gradient, views, self.parameters)
        for parameter, gradient, moves in zip(self.parameters, shaped, active, strict=True):
            parameter.grad = gradient if moves else None


def _as_gradient(view: Tensor, parameter: Tensor) -> Tensor:
    """Return the elements (size,) as a gradient of `parameter`: in its strides too, which fused optimizers assume."""
    if parameter.is_contiguous():
        shaped = view.view_as(parameter)
        return shaped if shaped.dtype is parameter.dtype else shaped.to(parameter.dtype)
    return torch.empty_like(parameter).copy_(view.view(parameter.shape))


def _n_listed_in(optimizer: Optimizer) -> int:
    """Return the number of parameters in the optimizer's groups."""
    return sum(len(group["params"]) for group in optimizer.param_groups)
