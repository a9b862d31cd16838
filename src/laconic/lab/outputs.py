"""What a command writes: checked before it works, so that no result is lost for a name or a folder that is wrong.

Nothing here imports torch.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from laconic.errors import Named, OptionError
from laconic.lab.atomic import named_in_errors, utf8, write_bytes
from laconic.lab.own_results import (
    LOGS,
    PICTURES,
    RUN_FILES,
    files_of_comparison,
    foreign_files,
    own_files,
    run_folders,
)

_LOCK = ".laconic.lock"


class _Output:
    """Something that is written within a `with` block. Folders that were made for it go again if they are empty."""

    def __init__(self, made: Sequence[Path]) -> None:
        self._made = made

    def close(self) -> None:
        """Remove the folders that were made and are still empty."""
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OutputFile(_Output):
    """A file that a command writes when its work is done. Made by `output_file`."""

    def __init__(self, path: Path, target: Path, made: Sequence[Path]) -> None:
        """Keep the name that was given, the file that it leads to, and the folders that were made."""
        super().__init__(made)
        self.path = path
        self._target = target

    def write_text(self, text: str) -> None:
        """Write `text` as UTF-8, as `write_bytes` does."""
        self.write_bytes(utf8(text))

    def write_bytes(self, data: bytes) -> None:
        """Replace the file as a whole. A device or a pipe is written to.

        Raises:
            OSError: The file cannot be written. It names the file, and what was there before is still there.
        """
        with named_in_errors(self.path):
            if _is_stream(self._target):
                with self._target.open("wb") as stream:
                    stream.write(data)
                return
            mode = stat.S_IMODE(self._target.stat().st_mode) if self._target.exists() else None
            write_bytes(self._target, data)
            if mode is not None:
                self._target.chmod(mode)


class OutputFolder(_Output):
    """A folder that one command uses. Made by `output_folder`, and locked until it is closed or the process ends."""

    def __init__(self, path: Path, *, option: str, made: Sequence[Path], resume: bool) -> None:
        """Lock the folder.

        Raises:
            OptionError: Another process uses the folder, or it cannot be written.
        """
        super().__init__(made)
        self.path = path
        self._option, self._resume = option, resume
        self._lock = _locked(path, option)
        for part in path.glob(".*.part"):  # of a process that was killed while it wrote
            with contextlib.suppress(OSError):
                part.unlink()
        self._inner: dict[str, OutputFolder] = {}

    def inner(self, name: str) -> "OutputFolder":
        """Return a folder in this one, made and locked until this one is closed."""
        if name not in self._inner:
            path = self.path / name
            made = _make(path, self._option, "folder")
            self._inner[name] = OutputFolder(path, option=self._option, made=made, resume=self._resume)
            if not self._resume:
                _refuse_foreign(path, self._option)
        return self._inner[name]

    def clear(self, *, keeps_logs: bool = False) -> None:
        """Remove the results of earlier runs, in this folder and in folders of methods in it. Other files stay.

        Args:
            keeps_logs: Whether logs stay, since runs of this command have begun them anew.
        """
        for path in _results(self.path):
            if not keeps_logs or path.name not in LOGS:
                path.unlink(missing_ok=True)
        for folder in sorted(self.path.glob("cells/**/"), reverse=True):
            with contextlib.suppress(OSError):  # it has files of others
                folder.rmdir()

    def close(self) -> None:
        """Unlock the folder."""
        for folder in self._inner.values():
            folder.close()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.path / _LOCK).unlink()
            os.close(self._lock)
            self._lock = None
        super().close()


def check_old_results(out: Path | None, *, overwrite: bool, resume: bool) -> None:
    """Refuse options about results of earlier commands that do not go together, or without `out`.

    Raises:
        OptionError: They do not.
    """
    for name, given in (("overwrite", overwrite), ("resume", resume)):
        if given and out is None:
            raise OptionError(Named(name, True), " is about results of an earlier command, so it needs ", Named("out"))
    if overwrite and resume:
        raise OptionError(
            Named("overwrite", True), " begins anew and ", Named("resume", True), " goes on; give one of them"
        )


def output_file(path: Path, *, option: str) -> OutputFile:
    """Check that a file can be written, before the work whose result it gets. What is there stays as it is.

    Args:
        path: The file. Its folder is made if it is missing.
        option: The option that names it, for messages.

    Raises:
        OptionError: It is a folder, its folder cannot be made, or nothing can be written there.
    """
    with _refused(path, option, "file"):
        if path.is_dir():
            raise OptionError(
                Named(option, str(path)), f" is a folder; give a file to write, such as {path / 'result.json'}"
            )
        target = path.resolve()
        if _is_stream(target):
            if not os.access(target, os.W_OK):
                raise PermissionError(errno.EACCES, "it may not be written")
            return OutputFile(path, target, ())
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "it is there, and may not be written")
    made = _make(target.parent, option, "file", shown=path)
    try:
        with _refused(path, option, "file"):
            if not target.exists():
                _probe_name(target)
            _probe(target.parent)
    except BaseException:
        _Output(made).close()
        raise
    return OutputFile(path, target, made)


def output_folder(path: Path, *, option: str, overwrite: bool, resume: bool = False) -> OutputFolder:
    """Check that a folder can be written and holds no results, and lock it.

    Args:
        path: The folder, which is made if it is missing.
        option: The option that names it, for messages.
        overwrite: Whether results of earlier runs are admitted. `OutputFolder.clear` removes them.
        resume: Whether results of earlier runs are admitted, to be continued.

    Raises:
        OptionError: It is a file or cannot be made or written, it holds results, or another process uses it.
    """
    with _refused(path, option, "folder"):
        if path.exists() and not path.is_dir():
            raise OptionError(Named(option, str(path)), " is a file; give a folder, which is made if it is missing")
    made = _make(path, option, "folder")
    try:
        folder = OutputFolder(path, option=option, made=made, resume=resume)
    except BaseException:
        _Output(made).close()
        raise
    try:
        if not resume:
            _refuse_foreign(path, option)
        found = _results(path)
        if found and not overwrite and not resume:
            names = ", ".join(str(one.relative_to(path)) for one in found[:3]) + (", ..." if len(found) > 3 else "")
            raise OptionError(
                Named(option, str(path)), f" holds results of an earlier run ({names}); ", Named("overwrite", True),
                " replaces them, or give another folder",
            )  # fmt: skip
        for inner in run_folders(path):
            folder.inner(inner.name)  # another command may use it alone
    except BaseException:
        folder.close()
        raise
    return folder


def _make(folder: Path, option: str, what: str, shown: Path | None = None) -> list[Path]:
    """Make a folder with its parents, and return those that were missing, the outermost first."""
    missing = []
    with _refused(shown or folder, option, what):
        at = folder
        while not os.path.lexists(at):
            missing.append(at)
            at = at.parent
        if not at.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{at} is not a folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except BaseException:
            _Output(missing[::-1]).close()
            raise
    return missing[::-1]


def _probe(folder: Path) -> None:
    """Write a byte to a temporary file in the folder."""
    part = folder / f".laconic.{os.getpid()}.part"
    try:
        part.write_bytes(b"\n")
    finally:
        part.unlink(missing_ok=True)


def _probe_name(target: Path) -> None:
    """Make and remove a file of this name, which may be too long or not allowed."""
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    target.unlink()


def _is_stream(target: Path) -> bool:
    """Return whether it is a device or a pipe, which is not replaced but written to."""
    return target.exists() and not target.is_file() and not target.is_dir()


@contextlib.contextmanager
def _refused(path: Path, option: str, what: str) -> Iterator[None]:
    """Turn an error of the system into one that names the option and says what to do."""
    try:
        yield
    except OSError as error:
        raise OptionError(
            Named(option, str(path)), f" cannot be written: {error.strerror or error}; give another {what}"
        ) from error
    except ValueError as error:
        if isinstance(error, OptionError):
            raise
        raise OptionError(Named(option, str(path)), f" cannot be written: {error}; give another {what}") from error


def refuse_shared_files(
    writes: Sequence[tuple[str, Path]], reads: Sequence[tuple[str, Path]], folder: Path | None = None
) -> None:
    """Refuse a file that two options would write, or that one would write and another reads.

    Args:
        writes: The files to write, each with its option.
        reads: The files to read.
        folder: The folder of `out`, in which files of runs are written.

    Raises:
        OptionError: Two lead to the same file, in whatever spelling, or by links.
    """
    for number, (option, path) in enumerate(writes):
        for other, known in [*writes[:number], *reads]:
            if _is_same(path, known) and not _is_stream(path):
                what = "write" if (other, known) in writes else "need"
                raise OptionError(
                    Named(option, str(path)), " and ", Named(other, str(known)), f" {what} the same file; give another"
                )
    if folder is not None:
        _refuse_files_of_runs(writes, reads, folder)


def _refuse_files_of_runs(writes: Sequence[tuple[str, Path]], reads: Sequence[tuple[str, Path]], folder: Path) -> None:
    for option, path in writes:
        where = path.resolve()
        if where.name in (*RUN_FILES, *PICTURES) and folder.resolve() in (where.parent, where.parent.parent):
            raise OptionError(
                Named(option, str(path)), " and ", Named("out", str(folder)), " write the same file; give another"
            )
    for option, path in reads:
        if option == "faults" and path.resolve() == folder.resolve() / "faults.toml":
            raise OptionError(
                Named(option, str(path)), " would be replaced, since ", Named("out", str(folder)),
                " writes a file of this name; give another folder",
            )  # fmt: skip


def _is_same(one: Path, other: Path) -> bool:
    try:
        if one.resolve() == other.resolve():
            return True
        return one.exists() and other.exists() and one.samefile(other)
    except (OSError, ValueError, RuntimeError):  # such a path is refused where it is opened
        return False


def _refuse_foreign(folder: Path, option: str) -> None:
    """Refuse a folder with files of others that a run would replace."""
    found = foreign_files(folder)
    if found:
        names = ", ".join(file.name for file in found)
        them = "it" if len(found) == 1 else "them"
        raise OptionError(
            Named(option, str(folder)), f" holds {names}, which no run of laconic has written; move {them}, or give "
            "another folder",
        )  # fmt: skip


def _results(folder: Path) -> list[Path]:
    """Return the files that runs wrote into this folder and into the folders of runs and of cells in it."""
    found = [file for one in (folder, *run_folders(folder)) for file in own_files(one)]
    return list(dict.fromkeys([*files_of_comparison(folder), *found]))


def _locked(folder: Path, option: str) -> int | None:
    """Lock a folder for this process and return the lock's descriptor; None where the system has no such locks.

    The kernel gives the lock back when the process ends, in whatever way.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        with _refused(folder, option, "folder"):
            _probe(folder)
        return None
    path = folder / _LOCK
    while True:
        with _refused(folder, option, "folder"):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            user = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise OptionError(
                Named(option, str(folder)), f" is in use by process {user or '(unknown)'}; wait until it has ended, or "
                "give another folder",
            ) from None  # fmt: skip
        except OSError:  # a file system without locks
            pass
        if _is_still(path, descriptor):
            break
        os.close(descriptor)  # the process before removed it in between
    with _refused(folder, option, "folder"):
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            raise
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
