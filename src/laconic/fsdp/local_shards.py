"""The local shards of a model's parameters, as plain tensors that share their memory: one vector for each rank."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from laconic.torch_compat import local_tensor


class LocalShards:
    """The trained parameters of a rank."""

    def __init__(self, parameters: Sequence[DTensor], fixed: Sequence[Tensor]) -> None:
        """Hold these parameters; `fixed` are those that must get no gradient, and buffers."""
        self._parameters, self._fixed = parameters, fixed
        self.tensors = [nn.Parameter(local_tensor(parameter).detach()) for parameter in parameters]
        """By parameter, what this rank has of it. One may have no element."""

    def take_gradients(self) -> dict[int, Tensor]:
        """Take the gradients of now: each tensor's `.grad` is its part of them.

        Returns:
            by place, new gradients of zeros for parameters that have none.

        Raises:
            RuntimeError: a parameter was thawed, or all were replaced.
        """
        if any(each.requires_grad for each in self._fixed):
            raise RuntimeError(
                "a parameter was frozen when the method was attached, and is trained now, so that nodes would train it "
                "apart; attach anew: handle.detach(), then laconic.fsdp.attach"
            )
        absent: dict[int, Tensor] = {}
        for place, (parameter, tensor) in enumerate(zip(self._parameters, self.tensors, strict=True)):
            local = local_tensor(parameter)
            if local.data_ptr() != tensor.data_ptr():  # FSDP has moved it
                tensor.data = local
            if parameter.grad is None:
                absent[place] = torch.zeros_like(parameter)
            else:
                tensor.grad = local_tensor(parameter.grad)
        if len(absent) == len(self.tensors):
            raise RuntimeError(
                "no parameter has a gradient after a backward pass that reduced some: they were replaced since the "
                "method was attached; attach it after what replaces them"
            )
        return absent

    def gradients(self, absent: dict[int, Tensor]) -> list[Tensor]:
        """Return what this rank has of each gradient, with those of zeros."""
        return [
            local_tensor(absent[place]) if tensor.grad is None else tensor.grad
            for place, tensor in enumerate(self.tensors)
        ]

    def give(self, absent: dict[int, Tensor], active: Sequence[bool]) -> None:
        """Let parameters without a gradient have that of `absent` if they took part in the round."""
        for place, gradient in absent.items():
            if active[place]:
                self._parameters[place].grad = gradient

    def drop_gradients(self) -> None:
        """Hold the gradients no longer; the parameters have them."""
        for tensor in self.tensors:
            tensor.grad = None
