"""Which file of a family of kernels is taken: the compiled one for a tensor on the CPU where numba can be imported,
Triton's for one on a GPU where that can be, else the plain one.
"""

import functools
from importlib import import_module
from types import ModuleType

import torch

from laconic.kernels import compiled, gpu

CPU = torch.device("cpu")
_PLAIN_ON_GPUS = ("short_floats", "kept", "pieces", "places", "votes")  # families without kernels in Triton


def fastest(family: str, device: torch.device = CPU) -> ModuleType:
    """The fastest file of a family there is for `device`. Loaded when first needed: numba and Triton take a second."""
    if device.type == "cuda":
        kind = "gpu" if gpu.available() and family not in _PLAIN_ON_GPUS else "plain"
    else:
        kind = "cpu" if device.type == "cpu" and compiled.available() else "plain"
    return _file(f"{kind}_{family}")


@functools.cache
def _file(name: str) -> ModuleType:
    return import_module(f"laconic.kernels.{name}")
