"""Which backend runs a function: numba for a tensor on the CPU, Triton on a GPU, else the reference in torch."""

import functools
from importlib import import_module
from types import ModuleType

import torch

from laconic.kernels import compiled, gpu

CPU = torch.device("cpu")
_PLAIN_ON_GPUS = ("short_floats", "kept", "pieces", "places", "votes")  # files without kernels in Triton


def fastest(family: str, device: torch.device = CPU) -> ModuleType:
    """Return the module of the fastest backend that has a file of functions.

    Modules are imported when they are first needed: numba and Triton take a second.

    Args:
        family: Name of the file, the same in every backend that has it, such as "signs".
        device: Where the tensors are.
    """
    if device.type == "cuda":
        kind = "gpu" if gpu.available() and family not in _PLAIN_ON_GPUS else "plain"
    else:
        kind = "cpu" if device.type == "cpu" and compiled.available() else "plain"
    return _file(f"{kind}_{family}")


@functools.cache
def _file(name: str) -> ModuleType:
    return import_module(f"laconic.kernels.{name}")
