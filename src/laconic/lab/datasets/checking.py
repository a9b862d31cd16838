"""Whether the files of a data set are those that were published."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from laconic.lab.datasets.published import ARCHIVES, PUBLISHED, checksum


@dataclass(frozen=True, kw_only=True)
class FileState:
    """What is known of one file."""

    path: Path
    known: str
    """The published checksum, with its kind."""
    found: str | None
    """That of the file here; None if it is missing."""

    @property
    def is_right(self) -> bool:
        """Whether the file is the published one."""
        return self.found == self.known

    @property
    def line(self) -> str:
        """What is to be said of it."""
        if self.found is None:
            return f"missing  {self.path} ({self.known})"
        return (
            f"ok       {self.path}" if self.is_right else f"differs  {self.path}: {self.found}, published {self.known}"
        )


def states_of(name: str, folder: Path) -> list[FileState]:
    """Return the state of each published file of a data set.

    Args:
        name: A key of PUBLISHED.
        folder: Its folder, or the one that the published archive was unpacked in.
    """
    archive = ARCHIVES.get(name)
    if archive is not None and (folder / archive.folder).is_dir():
        folder = folder / archive.folder
    return [
        FileState(
            path=folder / file, known=known,
            found=checksum(folder / file, known.partition(":")[0]) if (folder / file).is_file() else None,
        )
        for file, known in PUBLISHED[name].items()
    ]  # fmt: skip
