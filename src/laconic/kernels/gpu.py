"""Whether kernels for a GPU can be made here, and how they are started: Triton.

Imported on first use only, which is when a tensor is on a GPU: it costs a second, and most machines have none.
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
def available() -> bool:
    """Whether Triton can be imported. Warns once with RuntimeWarning where it cannot."""
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
    """Compile `function` when it is first launched; later processes read the machine code from disk.

    Arguments that are addresses or vectors are `tl.tensor`s; upper-case ones are known when it is compiled.
    """
    made: F = importlib.import_module("triton").jit(function)
    return made


def launch(made: Any, n_programs: int, first: Tensor, *arguments: Any, **constants: Any) -> None:  # noqa: ANN401
    """Run `n_programs` programs of a kernel `made` on the device of its first argument; none for an empty vector.

    A multiplication and an addition are never contracted into one rounding, so that all devices give the same bits.
    """
    if n_programs:
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            made[(n_programs,)](first, *arguments, enable_fp_fusion=False, **constants)


def blocks_of(count: int, size: int) -> int:
    """How many blocks of `size` entries hold `count` of them."""
    return -(-count // size)
