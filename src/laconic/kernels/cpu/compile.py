"""Compiling kernels for the CPU with numba: one thread, without the GIL, machine code kept on disk.

numba is imported on first use: it takes a second.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

from laconic.kernels.cpu.cache import KernelCache

F = TypeVar("F", bound=Callable[..., Any])


@functools.cache
def numba_available() -> bool:
    """Return whether numba can be imported. Warns once with RuntimeWarning where it cannot."""
    try:
        importlib.import_module("numba")
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}): kernels run in plain torch, many times slower; "
            "the way out is `pip install numba`",
            RuntimeWarning,
            stacklevel=4,
        )
        return False
    return True


def kernel(function: F) -> F:
    """Compile a function at its first call; later processes read the machine code from disk (`cache.py`).

    Division by zero gives inf or NaN as in numpy, the GIL is released, and nothing runs in parallel. Indices are not
    checked, unless NUMBA_BOUNDSCHECK=1: a kernel must stay within its arrays, whatever `kernels.checks` let pass.

    Args:
        function: Takes arrays, numbers and tuples; numba compiles it once for each combination of their types.
    """
    assert not getattr(function, "__closure__", None), f"{function} has values that its machine code's key does not see"
    numba = importlib.import_module("numba")
    # Nobody calls a kernel from C, so it needs no entry for that.
    made: Any = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    if hasattr(made, "enable_caching"):  # else numba is switched off, and it is the function itself
        made._cache = cache = KernelCache(function)
        made.compile = cache.once(made.compile, made.targetctx)
    return cast(F, made)


def inlined(function: F) -> F:
    """Make a part of a kernel that is put in place where it is called.

    A call with an array would count references to it. Not for work that is done once a call of the kernel.

    Args:
        function: As for `kernel`.
    """
    numba = importlib.import_module("numba")
    made: F = numba.njit(inline="always", error_model="numpy")(function)
    return made
