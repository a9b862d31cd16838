"""The lines of a text file with their numbers, packed or not, in the encoding that its first bytes show.

No line is read beyond a bound, so that a packed file cannot take the memory of the machine.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError

MAX_CHARACTERS = 1 << 26  # of one line
_PACKED: dict[bytes, tuple[str, Callable[[IO[bytes]], io.BufferedIOBase]]] = {
    b"\x1f\x8b": ("gzip", lambda stream: gzip.GzipFile(fileobj=stream)),
    b"BZh": ("bzip2", bz2.BZ2File),
    b"\xfd7zXZ\0": ("xz", lzma.LZMAFile),
}
_OTHER_TYPES = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook (.xlsx)",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a numpy array",
}
_BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_MAGIC_BYTES = 8


def existing_file(name: str, path: Path | None, wanted: str, *, option: str = "data") -> Path:
    """Return the path if it is a file.

    Raises:
        DataOptionError: It is missing, a folder or something else. The message says what `wanted` is.
    """
    if path is None:
        raise DataOptionError(f"{name}: needs ", Named(option), f", {wanted}")
    if not path.is_file():
        found = "is a folder, not a file" if path.is_dir() else "is not a file"
        if path.exists() and not path.is_dir():
            found += ", and data are read several times"  # a pipe
        raise DataOptionError(f"{name}: ", Named(option, str(path), quoted=True), f" {found}; it must be {wanted}")
    return path


def shown(word: str) -> str:
    """Return a word from a file for an error message, shortened: a binary file may be one long word."""
    return repr(word) if len(word) <= 40 else repr(word[:40]) + "..."


def numbered_lines(path: Path, encoding: str | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers from 1; every line but the last ends in one newline character.

    Args:
        path: Plain text, or text packed by gzip, bzip2 or xz, which its first bytes show.
        encoding: The name of an encoding; None for UTF-8, or UTF-16 where the file begins with its mark.

    Raises:
        DatasetError: The file is of another type or damaged, a line is too long, or has bytes of another encoding. The
            message names the line.
    """
    number = 0
    with path.open("rb") as plain:
        magic = plain.read(_MAGIC_BYTES)
        plain.seek(0)
        for begin, what in _OTHER_TYPES.items():
            if magic.startswith(begin):
                raise DatasetError(f"{path}: is {what}, must be text; export or unpack it as text first")
        packing, unpacked = next((p for begin, p in _PACKED.items() if magic.startswith(begin)), ("", None))
        try:
            stream = plain if unpacked is None else io.BufferedReader(unpacked(plain))
            mark = stream.peek(3)
            detected = next((name for begin, name in _BYTE_ORDER_MARKS.items() if mark.startswith(begin)), "utf-8")
            text = io.TextIOWrapper(stream, encoding or detected, errors="surrogateescape", newline=None)
            while line := text.readline(MAX_CHARACTERS):
                number += 1
                if len(line) == MAX_CHARACTERS:
                    raise DatasetError(
                        f"{path}: line {number} is longer than {MAX_CHARACTERS:,} characters, and must be one example; "
                        "is the file text?"
                    )
                if not line.isascii() or "\0" in line:
                    _check_characters(path, number, line, encoding or detected)
                yield number, line
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DatasetError(
                f"{path}: after line {number}: the {packing} data are damaged or break off ({error}); "
                "fetch or pack the file again"
            ) from None
        except UnicodeError as error:
            raise DatasetError(
                f"{path}: after line {number}: is not {encoding or detected} text ({error}); name another encoding"
            ) from None


def _check_characters(path: Path, number: int, line: str, encoding: str) -> None:
    if "\0" in line:
        raise DatasetError(f"{path}: line {number} has a zero byte, must be text; is it a binary file?")
    strange = next((place for place, character in enumerate(line) if "\udc80" <= character <= "\udcff"), None)
    if strange is not None:
        byte = ord(line[strange]) - 0xDC00
        raise DataOptionError(
            f"{path}: line {number}, character {strange + 1}: byte 0x{byte:02x} is not {encoding.upper()} text; save "
            "the file as UTF-8, or name its encoding, such as ", Named("encoding", "latin-1"),
        )  # fmt: skip
