"""Threads for compiled kernels: one by default, more where asked for, the same bits whatever their number.

Kernels release the interpreter's lock, so ordinary Python threads run them side by side. A kernel that takes part is a
function of a range of entries: what it writes for one entry, or adds up for one stretch of `CHUNK` entries, does not
depend on where a range begins. Ranges begin at multiples of `CHUNK`, so no two threads write the same byte of packed
codes. Only the thread that calls `in_chunks` waits, and no range calls it again.

Torch's own threads are another pool and are left alone: with n kernel threads a process keeps n cores busy within a
kernel, and with torch.set_num_threads(n) as many outside of one, never both at once.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch.multiprocessing

CHUNK = 1 << 16  # entries; below this a second thread costs more than it saves. A multiple of 64

MOST_KERNEL_THREADS = torch.multiprocessing.cpu_count()

_threads = 1
_pool: ThreadPoolExecutor | None = None  # of one thread less: the caller's own works too


def set_kernel_threads(n: int) -> None:
    """Let each compiled kernel use `n` threads of this process; the default is 1. Results do not depend on it.

    Holds for this process alone; workers in other processes are told by `--kernel-threads`, or call this themselves.
    Raises TypeError or ValueError unless n is a whole number in 1 .. the number of cores.
    """
    global _threads, _pool
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"set_kernel_threads: n={n!r} must be a whole number in 1 .. {MOST_KERNEL_THREADS}")
    if not 1 <= n <= MOST_KERNEL_THREADS:
        raise ValueError(f"set_kernel_threads: n={n} must be in 1 .. {MOST_KERNEL_THREADS}, the cores of this machine")
    if n == _threads:
        return
    if _pool is not None:
        _pool.shutdown()
    _pool = ThreadPoolExecutor(n - 1, thread_name_prefix="laconic-kernel") if n > 1 else None
    _threads = n


def kernel_threads() -> int:
    """How many threads a compiled kernel uses."""
    return _threads


def is_split(count: int) -> bool:
    """Whether `in_chunks` cuts so many entries into several ranges."""
    return min(_threads, count // CHUNK) > 1


def in_chunks(count: int, run: Callable[[int, int], object], entries: int | None = None) -> None:
    """Call run(start, stop) for ranges that cover 0 .. count, side by side where there are threads and work enough.

    entries: how many entries the whole has, where `count` counts something longer, such as blocks; ranges then begin
    anywhere, else at multiples of `CHUNK`.
    """
    n_ranges = min(_threads, (count if entries is None else entries) // CHUNK, count)
    if n_ranges < 2 or _pool is None:
        run(0, count)
        return
    unit = CHUNK if entries is None else 1
    size = -(-count // (n_ranges * unit)) * unit
    started: list[Future[object]] = [
        _pool.submit(run, start, min(start + size, count)) for start in range(size, count, size)
    ]
    try:
        run(0, size)
    finally:
        for future in started:
            future.result()
