"""Compiling and launching kernels on a GPU with Triton.

Triton is imported on first use, when a tensor is on a GPU: it takes a second, and most machines have no GPU.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def triton_available() -> bool:
    """Return whether Triton can be imported. Warns once with RuntimeWarning where it cannot."""
    try:
        importlib.import_module("triton")
    except ImportError as error:
        warnings.warn(
            f"triton cannot be imported ({error}): kernels run in plain torch on the GPU, several times slower; "
            "the way out is `pip install triton`",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return True


def kernel(function: F) -> F:
    """Compile a function when it is first launched; later processes read the machine code from disk.

    Args:
        function: Its arguments are addresses or vectors, `tl.tensor`; upper-case ones are constants at compile time.
    """
    made: F = importlib.import_module("triton").jit(function)
    return made


def launch(made: Any, n_programs: int, tensor: Tensor, *arguments: Any, **constants: Any) -> None:  # noqa: ANN401
    """Run programs of a kernel on the device of its first argument.

    A multiplication and an addition are never fused into one rounding, so that all devices give the same bits.

    Args:
        made: A compiled kernel.
        n_programs: Number of programs; with 0, for an empty vector, nothing is launched.
        tensor: The kernel's first argument.
        *arguments: Its other arguments.
        **constants: Its constants at compile time.
    """
    if n_programs:
        with torch.cuda.device_of(tensor):  # type: ignore[no-untyped-call]
            made[(n_programs,)](tensor, *arguments, enable_fp_fusion=False, **constants)


def blocks_of(count: int, size: int) -> int:
    """Return how many blocks of `size` elements hold `count` of them."""
    return -(-count // size)
