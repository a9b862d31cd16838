"""Where checkpoints are: a folder for each, within one folder of a run.

A checkpoint is written under a name that begins with a dot, and renamed once all its files are on disk. So a name such
as `000012-step-1200`, the 12th save at step 1200, is that of a complete one, whatever was killed and when.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from laconic import __version__
from laconic.checkpoint.parts import FORMAT, ReadPart, check_format, file_of, read_part
from laconic.checkpoint.sealed import check_content, sealed, unsealed
from laconic.errors import CheckpointError
from laconic.lab.atomic import sync_folder, write_bytes

MANIFEST = "manifest.json"
_NAME = re.compile(r"(\d{6,18})-step-(\d{1,18})")
_UNFINISHED = re.compile(r"\.\d{6,18}-step-\d{1,18}\.unfinished")
_NUMBER = range(1 << 62)
_CONTENT = {
    "format": int, "laconic": str, "torch": str, "step": _NUMBER, "save": _NUMBER,
    "parts": [{"file": str, "bytes": _NUMBER, "checksum": str}],
}  # fmt: skip


def path_of(folder: str | Path) -> Path:
    """Return a folder's path. Raises TypeError for what is none."""
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"checkpoint: folder={folder!r:.80} must be a path, as text or as pathlib.Path")
    return Path(folder)


def saved_in(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the newest at the front; none if there is no such folder.

    Raises:
        OSError: something else has its name, such as a file or a link to nothing, or it cannot be read.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; give the folder of the run, or that of one checkpoint")
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            if (name := _NAME.fullmatch(path.name)) and path.is_dir():
                found[int(name[1])] = path
    return [found[save] for save in sorted(found, reverse=True)]


def newest(folder: str | Path) -> Path | None:
    """Return the newest checkpoint in the folder of a run; None if there is none. Its bytes are not looked at.

    Raises:
        TypeError: it is no path.
        OSError: something else has its name, such as a file, or it cannot be read.
    """
    return next(iter(saved_in(path_of(folder))), None)


def check(path: str | Path) -> None:
    """Read every byte of a checkpoint, such as one that was copied. Not collective.

    Args:
        path: the folder of the checkpoint.

    Raises:
        TypeError: it is no path.
        CheckpointError: something in it is damaged, missing or of another save.
    """
    manifest = Manifest.read(path_of(path))
    leading = manifest.part(0)
    for rank in range(manifest.n_ranks):
        part = leading if rank == 0 else manifest.part(rank)
        part.state(leading)


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A checkpoint that is being written."""

    folder: Path
    save: int
    step: int

    @classmethod
    def begin(cls, folder: Path, step: int) -> "Writing":
        """Make room for the next checkpoint of a folder, and remove what a process that was killed has begun.

        Raises:
            OSError: the folder cannot be written.
            ValueError: it is a checkpoint itself.
        """
        if (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} is a checkpoint itself; give the folder of the run")
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                _remove(path)
        numbers = [_number_of(path) for path in saved_in(folder)]
        writing = cls(folder=folder, save=max(numbers, default=0) + 1, step=step)
        writing.unfinished.mkdir()
        return writing

    @property
    def unfinished(self) -> Path:
        """Where its files are written."""
        return self.folder / f".{self.save:06}-step-{self.step}.unfinished"

    @property
    def path(self) -> Path:
        """Where they are in the end."""
        return self.folder / f"{self.save:06}-step-{self.step}"

    def finish(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Make the checkpoint complete, once all its files are written.

        Args:
            parts: by rank, the "bytes" and the "checksum" of its file.

        Raises:
            OSError: a file is not there, or the manifest cannot be written.
        """
        listed = [{"file": file_of(rank), **part} for rank, part in enumerate(parts)]
        for part in listed:
            path = self.unfinished / str(part["file"])
            if not path.is_file() or path.stat().st_size != part["bytes"]:
                raise OSError(f"{path} is not there as its rank has written it; all ranks must see one folder")
        content = {
            "format": FORMAT, "laconic": __version__, "torch": torch.__version__, "step": self.step, "save": self.save,
            "parts": listed,
        }  # fmt: skip
        write_bytes(self.unfinished / MANIFEST, sealed(content))
        sync_folder(self.unfinished)
        self.unfinished.rename(self.path)
        sync_folder(self.folder)

    def give_up(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.unfinished, ignore_errors=True)


def remove_older(folder: Path, keep: int) -> None:
    """Remove all but the newest checkpoints of a folder. Raises OSError."""
    for path in saved_in(folder)[keep:]:
        removed = path.with_name(f".{path.name}.unfinished")  # at once; a kill leaves no half of one by its name
        path.rename(removed)
        _remove(removed)


def _remove(path: Path) -> None:
    """Remove a checkpoint's folder; of a link, such as to another disk, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint consists of."""

    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read the manifest of the checkpoint in a folder. Raises CheckpointError."""
        with _named(path / MANIFEST):
            content = unsealed(_bytes_of(path / MANIFEST))
            check_format(content)
            check_content(content, _CONTENT)
            names = [part["file"] for part in content["parts"]]
            if not names or names != [file_of(rank) for rank in range(len(names))]:
                raise CheckpointError("its description does not list the files of ranks 0, 1, ...")
        return cls(path=path, content=content)

    @property
    def n_ranks(self) -> int:
        """How many ranks have saved."""
        return len(self.content["parts"])

    def part(self, rank: int) -> ReadPart:
        """Read a rank's file, and check all of it. Raises CheckpointError."""
        listed = self.content["parts"][rank]
        file = self.path / listed["file"]
        with _named(file):
            n_bytes = file.stat().st_size if file.is_file() else listed["bytes"]
            if n_bytes != listed["bytes"]:  # then it is not even read
                raise CheckpointError(
                    f"it has {n_bytes} bytes of {listed['bytes']}; it is truncated or of another save"
                )
            part = read_part(_bytes_of(file), rank, listed["checksum"])
            own = {"rank": rank, "ranks": self.n_ranks, "step": self.content["step"], "save": self.content["save"]}
            if any(part.description[key] != value for key, value in own.items()):
                raise CheckpointError("it is of another save than the manifest")
            return part


def _number_of(path: Path) -> int:
    name = _NAME.fullmatch(path.name)
    assert name is not None
    return int(name[1])


def _bytes_of(file: Path) -> bytes:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise CheckpointError("it is no file")
    return file.read_bytes()


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Let every error of the block be a CheckpointError that begins with the file."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{file}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{file}: it cannot be read: {error.strerror}") from error
