"""A stand-in for a GPU: tensors that no numpy can read.

Every operation on one is done on the CPU and hands back another such tensor, but for copies to the host and single
numbers, which are noted.
"""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from laconic.kernels import checks


class Elsewhere(Tensor):
    """A tensor whose numbers are not the host's to read. Its device says "meta", the one that needs no driver."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise AssertionError(f"{operation} on a tensor elsewhere, and nobody noted it")


class Noted(TorchDispatchMode):
    """Does the operations, and notes in `bytes_copied` the size of everything that comes to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_copied = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        there = []
        tree_map_only(Elsewhere, there.append, (args, kwargs))
        stays = bool(there)
        inner_args, inner_kwargs = tree_map_only(Elsewhere, lambda one: one.held, (args, kwargs))
        if inner_kwargs.get("device") is not None:
            stays = torch.device(inner_kwargs["device"]).type == "meta"
            inner_kwargs["device"] = torch.device("cpu")
            if there and not stays:
                self.note(there[0])
        if operation is torch.ops.aten._local_scalar_dense.default:
            self.note(args[0])
        if operation is torch.ops.aten.copy_.default and there and not isinstance(args[0], Elsewhere):
            self.note(args[1])
        made = operation(*inner_args, **inner_kwargs)
        if there and operation._schema.is_mutable:
            return args[0]
        return tree_map_only(Tensor, Elsewhere, made) if stays else made

    def note(self, tensor: Tensor) -> None:
        self.bytes_copied.append(tensor.numel() * tensor.element_size())


def stand_in_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.tensor and tolist, which no dispatch mode sees, know the stand-in's device too."""
    make = torch.tensor

    def tensor(data, *, device=None, **kwargs):
        there = device is not None and torch.device(device).type == "meta"
        return Elsewhere(make(data, **kwargs)) if there else make(data, device=device, **kwargs)

    monkeypatch.setattr(torch, "tensor", tensor)
    for name in ("has_memory", "is_plain"):  # kernels refuse it otherwise: a wrapper has no memory of its own
        asked = getattr(checks, name)
        monkeypatch.setattr(checks, name, lambda tensor, asked=asked: type(tensor) is Elsewhere or asked(tensor))
    monkeypatch.setattr(checks, "_PLAIN_TYPES", (*checks._PLAIN_TYPES, Elsewhere))
    monkeypatch.setattr(Elsewhere, "tolist", lambda self: self.held.tolist(), raising=False)
