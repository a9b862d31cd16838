"""Which backend runs a function: numba for a tensor on the CPU, Triton on a GPU, else the reference in torch."""

import functools
from contextlib import AbstractContextManager
from importlib import import_module
from types import ModuleType

import torch

from laconic.kernels.cpu import compile as compiled
from laconic.kernels.gpu import compile as gpu

CPU = torch.device("cpu")
_REFERENCE_ON_GPUS = (
    "powers_of_two",
    "selected_values",
    "flatten",
    "indexing",
    "votes",
    "sums",
    "scaled_answers",
    "chunks",
    "quantized_sums",
    "gathered_codes",
    "late_codes",
    "distances",
    "steps",
    "checksums",
    "checked_sums",
    "descents",
    "landed",
)  # files without kernels in Triton


@functools.cache
def fastest(family: str, device: torch.device = CPU) -> ModuleType:
    """Return the module of the fastest backend that has a file of functions.

    Modules are imported when they are first needed: numba and Triton take a second.

    Args:
        family: Name of the file, the same in every backend that has it, such as "signs".
        device: Where the tensors are.
    """
    if device.type == "cuda":
        kind = "gpu" if gpu.triton_available() and family not in _REFERENCE_ON_GPUS else "reference"
    else:
        kind = "cpu" if device.type == "cpu" and compiled.numba_available() else "reference"
    return _file(f"{kind}.{family}")


@functools.cache
def _file(name: str) -> ModuleType:
    return import_module(f"laconic.kernels.{name}")


def reference(family: str) -> ModuleType:
    """Return the reference module of a file of functions, in plain torch, to compare other backends with."""
    return _file(f"reference.{family}")


def twin_in_place(name: str) -> AbstractContextManager[None]:
    """Let the library use the plain-numba twin of an LLVM kernel in its place; names are in `twins/table.py`."""
    made: AbstractContextManager[None] = _file("twins.table").twin_in_place(name)
    return made
