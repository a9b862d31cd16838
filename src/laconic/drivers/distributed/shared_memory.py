"""Memory that the ranks of a node share where they are on one host: a vector of each, and one for what they get.

It has no name once all have it, so that nothing is left behind however the ranks end. Who may read what, and when, is
up to the caller: `nodes.py` lets small messages follow what is written.
"""

import os
import tempfile
from pathlib import Path
from types import NoneType
from typing import Self

import torch
from torch import Tensor

from laconic.drivers.distributed.channel import Channel
from laconic.drivers.gathered import Either

FOLDER = "/dev/shm"
"""A file system in memory. A file there is for its owner alone."""
_PURPOSE = "to share memory in its node"
_MAX_PATH_BYTES = 1 << 12
_MARK_BYTES = 64  # one line of the caches, so that vectors begin with one


class SharedMemory:
    """Vectors (count,) that all ranks of a node can read and write."""

    def __init__(self, memory: Tensor, count: int, dtype: torch.dtype) -> None:
        """Take memory (n,) uint8, which begins with the name of its file."""
        self.count = count
        self._vectors = memory[_MARK_BYTES:].view(dtype).view(-1, _padded(count, dtype))

    @classmethod
    def of(cls, inside: Channel, n_vectors: int, count: int, dtype: torch.dtype) -> Self | None:
        """Return the memory of the ranks of a channel; None where one of them cannot have it. Collective.

        Raises:
            PeerLostError: a rank is missing.
        """
        n_bytes = _MARK_BYTES + n_vectors * _padded(count, dtype) * dtype.itemsize
        made = make_file(n_bytes) if inside.rank == 0 else None
        try:
            path, *_ = inside.gather(made, _PURPOSE, Either(NoneType, str), _MAX_PATH_BYTES)
            memory = None if path is None else open_file(path, n_bytes)
            have = inside.gather(memory is not None, _PURPOSE, bool, len("false"))
        finally:
            if made is not None:
                Path(made).unlink()
        return cls(memory, count, dtype) if memory is not None and all(have) else None

    def vector(self, number: int) -> Tensor:
        """Return a vector (count,), the same memory on all ranks."""
        return self._vectors[number][: self.count]


def _padded(count: int, dtype: torch.dtype) -> int:
    """Return the length of a vector with what is left of its last line of the caches."""
    a_line = _MARK_BYTES // dtype.itemsize
    return -(-count // a_line) * a_line


def make_file(n_bytes: int) -> str | None:
    """Make a file that begins with its name, and return its path; None where there is no such place, or no room."""
    try:
        handle, path = tempfile.mkstemp(prefix="laconic-", dir=FOLDER)
    except OSError:
        return None
    try:
        os.posix_fallocate(handle, 0, n_bytes)  # later a lack of room would end the process
        os.write(handle, _mark_of(path))
    except OSError:
        Path(path).unlink()
        return None
    finally:
        os.close(handle)
    return path


def open_file(path: str, n_bytes: int) -> Tensor | None:
    """Return the memory (n_bytes,) uint8 of such a file; None where it is not here, as on another host."""
    if os.path.dirname(path) != FOLDER or not os.path.isfile(path) or os.path.getsize(path) != n_bytes:
        return None
    try:
        memory = torch.from_file(path, shared=True, size=n_bytes, dtype=torch.uint8)
    except RuntimeError:
        return None
    return memory if bytes(memory[:_MARK_BYTES].tolist()) == _mark_of(path) else None


def _mark_of(path: str) -> bytes:
    return Path(path).name.encode().ljust(_MARK_BYTES, b"\0")[:_MARK_BYTES]
