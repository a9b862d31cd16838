"""The local shards of a model's parameters, as plain tensors that share their memory: one vector for each rank."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from laconic.torch_compat import is_inner_shard, local_tensor

PART_OF_ANOTHER = (
    "it is sharded in another sharded module, whose own parameters would be trained apart on each node; attach to that "
    "one, and freeze in it what shall not be trained"
)


class LocalShards:
    """The trained parameters of a rank."""

    def __init__(self, parameters: Sequence[DTensor], fixed: Sequence[Tensor], root: nn.Module) -> None:
        """Hold these parameters of `root`; `fixed` are those that must get no gradient, and buffers."""
        self._parameters, self._fixed, self._root = parameters, fixed, root
        self.tensors = [nn.Parameter(local_tensor(parameter).detach()) for parameter in parameters]
        """By parameter, what this rank has of it. One may have no element."""
        self._place_of = {id(parameter): place for place, parameter in enumerate(parameters)}

    def take_gradients(self) -> None:
        """Take the gradients of now: each tensor's `.grad` is its part of them, or None.

        Raises:
            RuntimeError: a parameter was thawed, all were replaced, or the model is a part of another one.
        """
        if is_inner_shard(self._root):  # known once there was a forward pass
            raise RuntimeError(f"model: {PART_OF_ANOTHER}")
        if any(each.requires_grad for each in self._fixed):
            raise RuntimeError(
                "a parameter was frozen when the method was attached, and is trained now, so that nodes would train it "
                "apart; attach anew: handle.detach(), then laconic.fsdp.attach"
            )
        for parameter, tensor in zip(self._parameters, self.tensors, strict=True):
            local = local_tensor(parameter)
            if local.data_ptr() != tensor.data_ptr():  # FSDP has moved it
                tensor.data = local
            tensor.grad = None if parameter.grad is None else local_tensor(parameter.grad)
        if all(tensor.grad is None for tensor in self.tensors):
            raise RuntimeError(
                "no parameter has a gradient: there was no backward pass, or they were replaced since the method was "
                "attached; attach it after what replaces them"
            )

    def place_of(self, parameter: Tensor) -> int | None:
        """Return the place of a sharded parameter; None for one that is not trained."""
        return self._place_of.get(id(parameter))

    def gradient_of(self, place: int, absent: dict[int, Tensor]) -> Tensor:
        """Return what this rank has of a gradient. Where there is none, zeros, which go into `absent`."""
        parameter = self._parameters[place]
        if parameter.grad is not None:
            return local_tensor(parameter.grad)
        absent[place] = torch.zeros_like(parameter)
        return local_tensor(absent[place])

    def give(self, absent: dict[int, Tensor], active: Sequence[bool]) -> None:
        """Let parameters without a gradient have that of `absent` if they took part in the round."""
        for place, gradient in absent.items():
            if active[place]:
                self._parameters[place].grad = gradient

    def give_all(self) -> None:
        """Let every parameter have the gradient of its tensor."""
        for parameter, tensor in zip(self._parameters, self.tensors, strict=True):
            parameter.grad = None if tensor.grad is None else _as_shard(tensor.grad, parameter)

    def drop_gradients(self) -> None:
        """Hold the gradients no longer; the parameters have them."""
        for tensor in self.tensors:
            tensor.grad = None


def _as_shard(tensor: Tensor, parameter: DTensor) -> DTensor:
    """Return this rank's part as a tensor that is sharded as a parameter is."""
    return DTensor.from_local(
        tensor, parameter.device_mesh, parameter.placements, run_check=False, shape=parameter.shape,
        stride=parameter.stride(),
    )  # fmt: skip
