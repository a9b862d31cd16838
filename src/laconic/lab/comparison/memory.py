"""How much memory processes take, and how much there is, in bytes. What a system does not tell is None."""

import contextlib
import os
import resource
import sys
from pathlib import Path

from laconic.errors import LaconicError

_GROUP = Path("/sys/fs/cgroup")
_SHARE = 0.8
"""Of what is available: the rest is for the file cache, and for others."""
_ENDED_BEFORE_OTHERS = "500"  # of 1000


class MemoryLimitError(LaconicError):
    """A cell wanted more memory than it may have."""


def resident_bytes(pid: int | None = None) -> int | None:
    """Return what a process, or this one, has in memory now. Pages that it shares with others count."""
    try:
        pages = int(Path(f"/proc/{pid or 'self'}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def highest_bytes() -> int | None:
    """Return the most that this process has had in memory, as `resident_bytes` counts it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, ValueError, StopIteration):
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest if sys.platform == "darwin" else highest << 10


def available_bytes() -> int | None:
    """Return how much memory processes may still take: of the machine, or of this group of processes if it has less."""
    free = [each for each in (_free_in_machine(), _free_in_group()) if each is not None]
    return int(_SHARE * min(free)) if free else None


def limit_this_process(n_bytes: int | None) -> None:
    """Let this process fail by itself where it takes more than this, and be the one that a full system ends."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_ENDED_BEFORE_OTHERS)
    if n_bytes is not None and sys.platform == "linux":  # elsewhere the limit is not kept, or means another thing
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        bound = n_bytes if hard == resource.RLIM_INFINITY else min(n_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there was no memory: Python's and numpy's by class, torch's by its words."""
    words = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in words or "out of memory" in words


def _free_in_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def _free_in_group() -> int | None:
    try:
        limit = (_GROUP / "memory.max").read_text().strip()
        used = int((_GROUP / "memory.current").read_text())
        cache = next(
            int(line.split()[1])
            for line in (_GROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        return None if limit == "max" else int(limit) - used + cache
    except (OSError, ValueError, StopIteration):
        return None
