"""Programs in processes that are forked from the one that ranks are forked from.

They end and write as those that the system starts, and are spared the seconds in which a fresh interpreter imports.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from support.ranks import fork_server


class Program:
    """A call in a process of its own, with the methods of `subprocess.Popen` that tests use."""

    def __init__(self, folder: Path, name: str, call: Callable[..., Any], *arguments: Any, **variables: str) -> None:
        """Start it with this process's environment and `variables`; what it writes goes to files in the folder."""
        self._files = folder / f"{name}.out", folder / f"{name}.err"
        self._process = fork_server().Process(
            target=_run, args=(self._files, os.environ | variables, os.getcwd(), call, arguments)
        )
        self._process.start()

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end, and return what it has written."""
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError(f"it still runs after {timeout} s")
        out, err = (file.read_text(encoding="utf-8") for file in self._files)
        return out, err

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the negative number of the signal that ended it."""
        return self._process.exitcode


def command(arguments: Sequence[str]) -> None:
    """`laconic` with these arguments."""
    from laconic.__main__ import main

    sys.argv = ["laconic", *arguments]
    main()


def _run(
    files: tuple[Path, Path], environment: dict[str, str], folder: str, call: Callable[..., Any], arguments: Any
) -> None:
    for descriptor, file in zip((1, 2), files, strict=True):
        written = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(written, descriptor)
        os.close(written)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    call(*arguments)
