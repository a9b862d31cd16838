"""Kernels compiled anew with some of their parts replaced, and put in their place while they are measured."""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any

import numba

from laconic.kernels import cpu


def with_parts(parts: Mapping[Any, Callable[..., Any]]) -> dict[Any, Any]:
    """Return new kernels by those that use one of the parts, in any depth.

    Args:
        parts: Plain functions, by the LLVM lanes or the kernel that each stands for.
    """
    made: dict[Any, Any] = {}
    for old, plain in parts.items():
        options = (
            old.targetoptions if _is_kernel(old) else {"error_model": "numpy", "inline": "always", "nopython": True}
        )
        made[id(old)] = numba.jit(**options)(plain)
    kernels = {id(value): value for module in _modules() for value in vars(module).values() if _is_kernel(value)}
    for kernel in kernels.values():
        _replaced(kernel, made)
    return {kernel: made[number] for number, kernel in kernels.items() if made.get(number) is not kernel}


@contextmanager
def in_place(new: Mapping[Any, Any]) -> Iterator[None]:
    """Let the library call the new kernels."""
    by_id = {id(old): kernel for old, kernel in new.items()}
    found = [
        (vars(module), name, value)
        for module in _modules()
        for name, value in vars(module).items()
        if id(value) in by_id
    ]
    for owner, name, value in found:
        owner[name] = by_id[id(value)]
    try:
        yield
    finally:
        for owner, name, value in found:
            owner[name] = value


def _replaced(kernel: Any, made: dict[int, Any]) -> Any:  # noqa: ANN401 - numba's own
    """Return a kernel that uses what is made, or itself if it uses none of it."""
    if id(kernel) in made:
        return made[id(kernel)]
    made[id(kernel)] = kernel  # none calls itself
    function = kernel.py_func
    used = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    new = {
        name: _replaced(value, made) if _is_kernel(value) else made.get(id(value), value)
        for name, value in used.items()
    }
    if any(new[name] is not used[name] for name in used):
        copied = FunctionType(function.__code__, {**function.__globals__, **new}, function.__name__)
        made[id(kernel)] = numba.jit(**kernel.targetoptions)(copied)
    return made[id(kernel)]


def _is_kernel(value: object) -> bool:
    return hasattr(value, "py_func") and hasattr(value, "targetoptions")


def _modules() -> list[ModuleType]:
    return [import_module(f"{cpu.__name__}.{found.name}") for found in pkgutil.iter_modules(cpu.__path__)]
