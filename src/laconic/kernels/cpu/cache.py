"""Machine code of kernels on disk, for this user alone; where that cannot be, it stays in memory, and one line says so.

In place of numba's own cache, which reads what other users can write, and whose faults end the program.
"""

import contextlib
import functools
import gc
import hashlib
import importlib
import importlib.util
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from laconic.kernels.cpu.private_folder import PrivateFolder
from laconic.kernels.cpu.sources import digest_of, digest_of_all
from laconic.statements import state_once

# Settings of numba that change the machine code.
_NUMBA_SETTINGS = (
    "BOUNDSCHECK", "CPU_FEATURES", "CPU_NAME", "DEBUGINFO_DEFAULT", "DISABLE_INTEL_SVML", "ENABLE_AVX",
    "LOOP_VECTORIZE", "OPT", "SLP_VECTORIZE",
)  # fmt: skip
_PATIENCE_S = 30.0  # with another process that compiles the same; it may have been stopped
_prepared: set[str] = set()  # jobs, by this process


class KernelCache:
    """The machine code of one function, by the types of its arguments. It has the methods of numba's own caches.

    Of a function that is in no file, such as one that was typed in, nothing is kept: nobody sees when it changes.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Make the cache of a function that numba compiles."""
        self._function = function

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(kernel_folder().path)

    def load_overload(self, signature: Any, context: Any) -> Any:  # noqa: ANN401 - numba has no types
        """Return what was compiled for a signature; None if nothing was."""
        context.refresh()
        if not self._is_in_file():
            return None
        payload = kernel_folder().read(self._name(signature, context.codegen()))
        if payload is not None:
            compiler = importlib.import_module("numba.core.compiler")
            with contextlib.suppress(Exception):  # it is compiled again, and replaced
                return compiler.CompileResult._rebuild(context, *pickle.loads(payload))
        _state_compiling()
        return None

    def save_overload(self, signature: Any, result: Any) -> None:  # noqa: ANN401
        """Keep what was compiled for a signature."""
        can_be_read = not result.library.has_dynamic_globals and all(each.can_cache for each in result.lifted)
        if not (can_be_read and self._is_in_file()):
            return
        serialize = importlib.import_module("numba.core.serialize")
        kernel_folder().write(self._name(signature, result.codegen), serialize.dumps(result._reduce()))
        if kernel_folder().full:
            _state_in_memory()

    def once(self, compile_: Callable[[Any], Any], context: Any) -> Callable[[Any], Any]:  # noqa: ANN401
        """Return numba's way to compile the function, by one process at a time, and without garbage collection.

        Its garbage is little, and takes long to look for.

        Args:
            compile_: Takes a signature, and asks this cache before it compiles.
            context: Numba's target.
        """
        of_threads = importlib.import_module("numba.core.compiler_lock").global_compiler_lock

        @functools.wraps(compile_)
        def compiled(signature: Any) -> Any:  # noqa: ANN401
            with of_threads, contextlib.ExitStack() as stack:
                if self._is_in_file():
                    stack.enter_context(kernel_folder().making(self._name(signature, context.codegen()), _PATIENCE_S))
                if gc.isenabled():
                    gc.disable()
                    stack.callback(gc.enable)
                return compile_(signature)

        return compiled

    def _is_in_file(self) -> bool:
        return bool(digest_of(self._function.__code__.co_filename))

    def _name(self, signature: Any, codegen: Any) -> str:  # noqa: ANN401
        function = self._function
        about = repr((function.__module__, function.__qualname__, str(signature), codegen.magic_tuple())).encode()
        code = function.__code__
        found = hashlib.blake2b(about + code.co_code + digest_of(code.co_filename), digest_size=10).hexdigest()
        return f"{function.__name__.strip('_')}-{found}.kernel"


@functools.cache
def kernel_folder() -> PrivateFolder:
    """Return the folder of this process: one for each version of what all machine code depends on."""
    root, problem = _root()
    return PrivateFolder(None if root is None else root / _version(), problem)


def _root() -> tuple[Path | None, str]:
    """Return this user's folder for all versions, or why there is none."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):  # users may share it
        user = os.geteuid() if hasattr(os, "geteuid") else "own"
        return Path(given).absolute() / f"laconic-kernels-{user}", ""
    if os.path.isabs(given := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(given) / "laconic" / "kernels", ""
    home = os.path.expanduser("~")
    if not os.path.isdir(home):
        return None, f"the home folder {home} does not exist"
    return Path(home) / ".cache" / "laconic" / "kernels", ""


@functools.cache
def _version() -> str:
    """Return a name for numba, Python, this processor and settings of numba; sources are in the names of files."""
    numba, llvm = importlib.import_module("numba"), importlib.import_module("llvmlite.binding")
    cpu = numba.config.CPU_NAME or llvm.get_host_cpu_name()
    settings = [getattr(numba.config, name, None) for name in _NUMBA_SETTINGS]
    about = hashlib.blake2b(repr((llvm.get_host_cpu_features().flatten(), settings)).encode(), digest_size=6)
    laconic = getattr(sys.modules["laconic"], "__version__", "")
    python = sys.implementation.cache_tag
    return f"laconic-{laconic}-numba-{numba.__version__}-{python}-{cpu}-{about.hexdigest()}"


@functools.cache
def _state_compiling() -> None:
    """State once that kernels are compiled, so that the wait has a reason, and where they are kept."""
    folder = kernel_folder()
    folder.try_to_write()
    if folder.problem or folder.full:
        _state_in_memory()
    else:
        again = f"; {folder.damaged}, and is replaced" if folder.damaged else ""
        state_once(f"compiling kernels, once a machine; kept in {folder.path}{again}")


@functools.cache
def _state_in_memory() -> None:
    folder = kernel_folder()
    if os.environ.get("LOCAL_RANK", "0") == "0":  # it concerns all processes of this machine
        state_once(
            f"compiling kernels in memory, since they cannot be kept: {folder.problem or folder.full}; set "
            "NUMBA_CACHE_DIR to a folder that you alone can write, and they are"
        )


def are_prepared(job: str) -> bool:
    """Return whether this process, or the folder, has all kernels that a job was seen to use.

    Args:
        job: All that the choice of its kernels depends on.
    """
    if job not in _prepared and importlib.util.find_spec("numba") is None:
        _prepared.add(job)  # kernels run in torch
    if job not in _prepared:
        folder = kernel_folder()
        listed = folder.read(_list_of(job))
        with contextlib.suppress(ValueError, TypeError):
            if listed is not None and folder.has(set(json.loads(listed))):
                _prepared.add(job)
    return job in _prepared


def prepare(job: str, use: Callable[[], object]) -> None:
    """Compile the kernels of a job, unless another process has. One process of this machine does so at a time.

    Args:
        job: All that the choice of its kernels depends on.
        use: Uses all of them once.
    """
    folder = kernel_folder()
    with folder.locked():
        if not are_prepared(job):
            use()
            names = {name for name in folder.used if name.endswith(".kernel")}
            folder.write(_list_of(job), json.dumps(sorted(names)).encode())
            _prepared.add(job)


def _list_of(job: str) -> str:
    return f"job-{hashlib.blake2b(job.encode() + digest_of_all(), digest_size=10).hexdigest()}.json"
