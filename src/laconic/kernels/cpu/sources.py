"""What a kernel's machine code depends on: its own file, and the files of kernels that this one takes names from.

By file and not by all of them, so that after a change of one kernel the others are not compiled again.
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from laconic.kernels.cpu.private_folder import digest

_PACKAGE = Path(__file__).parents[2]
# Of other folders nothing is compiled into a kernel; nor are its cache's own files.
_FOLDERS = tuple(_PACKAGE / "kernels" / name for name in ("cpu", "reference", "twins"))
_NOT_COMPILED = ("cache.py", "private_folder.py", "sources.py")
_IMPORT = re.compile(r"^[ \t]*from laconic\.([\w.]+) import (\([^)]*\)|[^\n]*)|^[ \t]*import laconic\.([\w.]+)", re.M)


@functools.cache
def digest_of(file: str) -> bytes:
    """Return a digest of a file and of all that it takes from other kernels; empty if it cannot be read.

    Args:
        file: A path, as functions have it.
    """
    found, new = set[Path](), [Path(file)]
    while new:
        if (path := new.pop()) not in found:
            found.add(path)
            new += _taken_from(path)
    about = hashlib.blake2b(digest_size=20)
    for path in sorted(found):
        about.update(digest(_text(path)))
    return about.digest() if _text(Path(file)) else b""


@functools.cache
def digest_of_all() -> bytes:
    """Return a digest of the files of all kernels."""
    about = hashlib.blake2b(digest_size=20)
    for folder in _FOLDERS:
        for path in sorted(folder.rglob("*.py")):
            about.update(b"" if path.name in _NOT_COMPILED else digest(_text(path)))
    return about.digest()


@functools.cache
def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@functools.cache
def _taken_from(path: Path) -> list[Path]:
    """Return the files of kernels that a file names in its imports."""
    return [
        each
        for source, names, plain in _IMPORT.findall(_text(path).decode())
        for each in _files(source or plain, names)
        if each.name not in _NOT_COMPILED and any(each.is_relative_to(folder) for folder in _FOLDERS)
    ]


def _files(source: str, names: str) -> Iterator[Path]:
    module = _PACKAGE.joinpath(*source.split("."))
    if not module.is_dir():
        yield module.with_suffix(".py")
        return
    yield module / "__init__.py"
    modules = [module / f"{name}.py" for name in re.findall(r"\w+", names)]
    yield from (each for each in modules if each.is_file())
