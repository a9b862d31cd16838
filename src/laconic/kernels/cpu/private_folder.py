"""A folder of files that only this user can write, such as compiled kernels. Nothing in it is needed: all can be lost.

Its files are read as pickles, and whoever writes a pickle runs code here. So owner and permissions of the folder, its
parents and each file are looked at before a byte is read. A file has a digest; one that is damaged counts as missing.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on every system; two processes may then compile the same
    fcntl = None  # type: ignore[assignment]

_HEAD = b"laconic kernel 1\n"
_DIGEST_BYTES = 32
_PROBE = bytes(1 << 20)  # about the machine code of ten kernels
_POLL_S = 0.01
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class PrivateFolder:
    """A folder, which may become unusable at any time. No method raises OSError."""

    def __init__(self, path: Path | None, problem: str = "") -> None:
        """Look at the folder. It is made at the first write.

        Args:
            path: The folder; None for none.
            problem: Why there is none.
        """
        self.path = None if path is None else path.resolve()
        self.problem = problem if self.path is None else why_unsafe(self.path)
        """Why it is not used; empty if it is."""
        self.full = ""
        """Why nothing is written any more, while files are still read; empty if files are written."""
        self.damaged = ""
        """What was wrong with the file that was read last; empty if nothing was."""
        self.used: set[str] = set()
        """The names of all files read or written."""

    def read(self, name: str) -> bytes | None:
        """Return what was written under a name; None if it is missing or damaged, or others could have written it."""
        if self.path is None or self.problem:
            return None
        self.damaged = problem = ""
        file = self.path / name
        try:
            with open(os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0)), "rb") as opened:
                problem = _why_not_ours(os.fstat(opened.fileno()))
                data = b"" if problem else opened.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            problem, data = _why(error), b""
        start, end = len(_HEAD), len(_HEAD) + _DIGEST_BYTES
        if problem or data[:start] != _HEAD or data[start:end] != digest(data[end:]):
            self.damaged = f"{file} {problem or 'is damaged'}"
            return None
        self.used.add(name)
        return data[end:]

    def write(self, name: str, payload: bytes) -> None:
        """Keep something under a name. After a failure, which `full` has, nothing is written any more."""
        if self.path is None or self.problem or self.full:
            return
        for _ in range(2):
            try:
                _make(self.path)
                _replace(self.path / name, _HEAD + digest(payload) + payload)
            except FileNotFoundError as error:  # removed in this very moment
                self.full = f"{self.path}: {_why(error)}"
            except OSError as error:
                self.full = f"{self.path}: {_why(error)}"
                return
            else:
                self.full = ""
                self.used.add(name)
                return

    def has(self, names: set[str]) -> bool:
        """Return whether all these files are there."""
        try:
            return self.path is not None and not self.problem and names <= set(os.listdir(self.path))
        except OSError:
            return False

    def try_to_write(self) -> None:
        """Find out whether files can be written; if not, `full` says why."""
        if self.path is None or self.problem or self.full:
            return
        try:
            _make(self.path)
            with tempfile.TemporaryFile(dir=self.path) as probe:
                probe.write(_PROBE)
        except OSError as error:
            self.full = f"{self.path}: {_why(error)}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process in at a time, and the others wait. Where no lock can be had, all go in."""
        with contextlib.ExitStack() as stack:
            if self.path is not None and not self.problem and fcntl is not None:
                with contextlib.suppress(OSError):
                    _make(self.path)
                    descriptor = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
                    stack.callback(os.close, descriptor)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def making(self, name: str, patience_s: float) -> Iterator[None]:
        """Let one process at a time make a file that is not there, as far as locks can be had. Others wait for it.

        Args:
            name: Of the file. Whether it is there is to be asked again.
            patience_s: After so many seconds one goes in beside the other.
        """
        with contextlib.ExitStack() as stack:
            if self.path is not None and not (self.problem or self.full or (self.path / name).exists()):
                with contextlib.suppress(OSError):
                    _make(self.path)
                    stack.enter_context(_locked(self.path / f"{name}.lock", patience_s))
            yield


@contextlib.contextmanager
def _locked(file: Path, patience_s: float) -> Iterator[None]:
    """Hold a lock, which is a file for as long as that takes. A process that is forked meanwhile does not have it."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    is_ours = False
    try:
        is_ours = _lock_within(descriptor, patience_s)
        yield
    finally:
        if is_ours:
            with contextlib.suppress(OSError):
                file.unlink()
        os.close(descriptor)


def _lock_within(descriptor: int, patience_s: float) -> bool:
    """Lock a file, unless another process holds it for that long; return whether it is locked."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError, PermissionError):
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_POLL_S)
    return False


def why_unsafe(folder: Path) -> str:
    """Return why another user could write into a folder, or put another one in its place; empty if none can.

    Folders that are not there yet will be made for this user alone. Root may write everywhere.

    Args:
        folder: A path without symbolic links.
    """
    if not hasattr(os, "geteuid"):
        return ""
    for part in [folder, *folder.parents]:
        try:
            about = os.lstat(part)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{part}: {_why(error)}"
        if not stat.S_ISDIR(about.st_mode):
            return f"{part} is no folder"
        if about.st_uid not in (os.geteuid(), 0):
            return f"{part} belongs to another user"
        others = about.st_mode & _OTHERS_WRITE
        # Nobody else can replace a folder of this user in a sticky one, such as /tmp.
        is_harmless = about.st_mode & stat.S_ISVTX or (others == stat.S_IWGRP and _is_alone_in(about.st_gid))
        if others and (part == folder or not is_harmless):
            return f"other users can write into {part}"
    return ""


def _is_alone_in(gid: int) -> bool:
    """Return whether a group is the one that many systems make for each user, with the user's name and nobody else."""
    import grp
    import pwd

    try:
        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return group.gr_name == user.pw_name and gid == user.pw_gid and set(group.gr_mem) <= {user.pw_name}


def digest(data: bytes) -> bytes:
    """Return a digest of 32 bytes."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _why_not_ours(about: os.stat_result) -> str:
    if not stat.S_ISREG(about.st_mode):
        return "is no file"
    if hasattr(os, "geteuid") and (about.st_uid not in (os.geteuid(), 0) or about.st_mode & _OTHERS_WRITE):
        return "can be written by another user"
    return ""


def _make(folder: Path) -> None:
    """Make a folder and its missing parents, for this user alone."""
    if not folder.is_dir():
        _make(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def _replace(file: Path, data: bytes) -> None:
    """Write a file that nobody sees half-written."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".writing-")
    try:
        with open(descriptor, "wb") as opened:
            opened.write(data)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _why(error: OSError) -> str:
    return error.strerror or str(error)
