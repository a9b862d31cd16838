"""Compiling kernels for the CPU with numba: one thread, without the GIL, machine code kept on disk.

numba is imported on first use: it takes a second.
"""

import functools
import importlib
import logging
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

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
    _say_when_compiling()
    return True


def kernel(function: F) -> F:
    """Compile a function at its first call; later processes read the machine code from disk, where it can be kept.

    Division by zero gives inf or NaN as in numpy, the GIL is released, and nothing runs in parallel. Indices are not
    checked, unless NUMBA_BOUNDSCHECK=1: a kernel must stay within its arrays, whatever `kernels.checks` let pass.

    Args:
        function: Takes arrays, numbers and tuples; numba compiles it once for each combination of their types.
    """
    return _compiled(function)


def _compiled(function: F, **options: object) -> F:
    numba = importlib.import_module("numba")
    options |= {"nogil": True, "error_model": "numpy"}
    try:
        made: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written: compiled in each process
        made = numba.njit(**options)(function)
    return made


def inlined(function: F) -> F:
    """Make a part of a kernel that is put in place where it is called.

    A call with an array would count references to it. Not for work that is done once a call of the kernel.

    Args:
        function: As for `kernel`.
    """
    numba = importlib.import_module("numba")
    made: F = numba.njit(inline="always", error_model="numpy")(function)
    return made


@functools.cache
def _say_when_compiling() -> None:
    """Log one line at the first kernel that is not on disk yet, so that the wait of some seconds has a reason."""
    event = importlib.import_module("numba.core.event")

    class Compiling(event.Listener):  # type: ignore[misc, name-defined]
        warned = False

        def on_start(self, event: Any) -> None:  # noqa: ANN401 - numba has no types
            ours = event.data["dispatcher"].py_func.__module__.startswith("laconic.")
            if ours and not self.warned:
                self.warned = True
                logging.getLogger("laconic").warning("compiling kernels, once; they are kept on disk")

        def on_end(self, event: Any) -> None:  # noqa: ANN401
            pass

    event.register("numba:compile", Compiling())
