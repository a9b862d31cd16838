"""Threads for compiled kernels: one by default, more on request, and the same bits for any number.

Kernels release the GIL, so ordinary Python threads run them in parallel. A kernel that takes part is a function of a
range of elements. What it writes for one element, or adds for one chunk of `CHUNK` elements, does not depend on where
the range begins. Ranges begin at multiples of `CHUNK`, so no two threads write the same byte of packed codes. Only the
thread that calls `in_chunks` waits, and no range may call it again.

torch has a pool of its own, which is left alone. With n kernel threads a process uses n cores inside a kernel, and with
torch.set_num_threads(n) as many outside, never both at once.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch.multiprocessing

CHUNK = 1 << 16  # elements; below this a second thread costs more than it saves. A multiple of 64

MAX_KERNEL_THREADS = torch.multiprocessing.cpu_count()

_threads = 1
_pool: ThreadPoolExecutor | None = None  # one thread fewer than asked for: the caller works too


def set_kernel_threads(n: int) -> None:
    """Let each compiled kernel use several threads of this process. Results do not depend on the number.

    It holds for this process only. Other worker processes take `--kernel-threads`, or call this function themselves.

    Args:
        n: 1 .. the number of cores; the default is 1.

    Raises:
        TypeError: n is not an int.
        ValueError: n is below 1 or above the number of cores.
    """
    global _threads, _pool
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"set_kernel_threads: n={n!r} must be a whole number in 1 .. {MAX_KERNEL_THREADS}")
    if not 1 <= n <= MAX_KERNEL_THREADS:
        raise ValueError(f"set_kernel_threads: n={n} must be in 1 .. {MAX_KERNEL_THREADS}, the cores of this machine")
    if n == _threads:
        return
    if _pool is not None:
        _pool.shutdown()
    _pool = ThreadPoolExecutor(n - 1, thread_name_prefix="laconic-kernel") if n > 1 else None
    _threads = n


def kernel_threads() -> int:
    """Return how many threads a compiled kernel uses."""
    return _threads


def is_split(count: int) -> bool:
    """Return whether `in_chunks` splits so many elements into several ranges."""
    return _threads > 1 and count >= 2 * CHUNK


def in_chunks(count: int, run: Callable[[int, int], object], elements: int | None = None) -> None:
    """Call run(start, stop) for ranges that cover 0 .. count, in parallel where there are threads and enough work.

    Args:
        count: Number of elements, or of something longer, such as blocks.
        run: Takes the first index of a range, and the index behind its last one.
        elements: Number of elements where `count` counts something longer. Ranges then begin anywhere, otherwise at
            multiples of `CHUNK`.
    """
    if _pool is None:
        run(0, count)
        return
    n_ranges = min(_threads, (count if elements is None else elements) // CHUNK, count)
    if n_ranges < 2:
        run(0, count)
        return
    unit = CHUNK if elements is None else 1
    size = -(-count // (n_ranges * unit)) * unit
    started: list[Future[object]] = [
        _pool.submit(run, start, min(start + size, count)) for start in range(size, count, size)
    ]
    try:
        run(0, size)
    finally:
        for future in started:
            future.result()
