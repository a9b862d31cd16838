"""Files that are written completely or not at all. Every error of the system names the file."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, as `utf8` does, and as a whole, as `write_bytes` does."""
    write_bytes(path, utf8(text))


def utf8(text: str) -> bytes:
    """Return `text` as UTF-8, whatever the locale is. No name of a file costs a result.

    Bytes of such a name that the locale could not read become what they are in UTF-8, or else a replacement character.
    """
    try:
        return text.encode(errors="surrogateescape").decode(errors="replace").encode()
    except UnicodeEncodeError:  # surrogates that stand for no byte
        return text.encode(errors="replace")


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file and rename it to `path`, so that `path` is never incomplete.

    Raises:
        OSError: The file cannot be written. What was there before is still there, and no temporary file is left.
    """
    part = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
    with named_in_errors(path):
        try:
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())  # some file systems report a full disk only here
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


def sync_file(path: Path) -> None:
    """Let what others have written to a file be on disk. Raises OSError."""
    with named_in_errors(path), path.open("rb+") as stream:
        os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Let the names in a folder be on disk: those of new files, and of files that were renamed."""
    with named_in_errors(folder), contextlib.suppress(PermissionError):  # Windows opens no folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Let every OSError of the block name `path`: the system names no file where a write fails."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename == str(path):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
