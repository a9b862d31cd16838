"""Pools of buffers and vectors, which are reused because new memory is slow.

Each 4 KiB of a new large buffer cost a page fault. How long a frame is in use is not known beforehand: the values of a
decoded packet are views of it, and a method may store them. So a buffer is borrowed as a tensor, and is reclaimed when
the last tensor that shares its memory is gone.

A pass over several vectors of megabytes reads more pages than the processor remembers the places of. So long vectors
lie in huge pages, of 2 MiB in place of 4 KiB, where the system has them. And they begin at different places of a page
of 4 KiB: some processors look an address up by its lower bits first, and a pass over five vectors that begin at the
same place takes twice as long there.
"""

import ctypes
import gc
import mmap
import weakref
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from itertools import count as counted
from threading import RLock
from typing import Any

import torch
from torch import Tensor

_SMALLEST_POOLED = 1 << 11
_HUGE_BYTES = 1 << 20  # from so many on, a vector lies in huge pages
_SLAB_BYTES = 1 << 25  # so that vectors do not begin in a huge page each
_PAGE = 1 << 12
_APART = 17 * 64  # bytes of a page between the places at which vectors begin: all of its 64 lines in turn
_RETAINED_BYTES = (1 << 25) - (1 << 16)  # about the largest block after which glibc retains more of what is freed
_M_TRIM_THRESHOLD, _MAX_INT = -1, 2**31 - 1  # as malloc.h of glibc has them
_PATIENCE = 256  # a buffer unused for so many borrowings is dropped when a new one is allocated


class BufferPool:
    """Buffers of bytes, borrowed by length. Threads may share a pool."""

    def __init__(self) -> None:
        self._free: list[tuple[int, int, Tensor]] = []  # (number of its last borrowing, length, buffer)
        self._n_borrowed = 0
        self._choosing = RLock()  # protects the choice of a buffer; reclaiming only appends

    def borrow(self, n_bytes: int) -> Tensor:
        """Return a buffer (n_bytes,) uint8 with arbitrary content. A small one is new, which costs less."""
        if n_bytes < _SMALLEST_POOLED:
            return torch.empty(n_bytes, dtype=torch.uint8)
        with self._choosing:
            self._n_borrowed += 1
            for place, (_, length, _) in enumerate(self._free):
                if n_bytes <= length <= 2 * n_bytes:
                    buffer = self._free.pop(place)[2]
                    break
            else:
                buffer = self._new_buffer(n_bytes)
                length = buffer.numel()
        borrowed = buffer.numpy()[:n_bytes]  # a new array, which lives as long as any tensor over it
        weakref.finalize(borrowed, self._free.append, (self._n_borrowed, length, buffer)).atexit = False
        return torch.from_numpy(borrowed)

    def drop_free(self) -> None:
        """Drop the buffers that nobody uses."""
        with self._choosing:
            self._free.clear()

    def _new_buffer(self, n_bytes: int) -> Tensor:
        self._free[:] = [free for free in self._free if self._n_borrowed - free[0] < _PATIENCE]
        return torch.empty(n_bytes + n_bytes // 8, dtype=torch.uint8)  # large enough for slightly longer frames


BUFFER_POOL = BufferPool()  # shared by the process
LONG_BYTES = 1 << 17  # from so many on, the C library may hand out new pages each time


def new_vector(count: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Return a vector (count,) with arbitrary content; a long one's memory is used again when it is gone."""
    n_bytes = count * dtype.itemsize
    if n_bytes < LONG_BYTES or (device is not None and device.type != "cpu"):
        return torch.empty(count, dtype=dtype, device=device)
    return BUFFER_POOL.borrow(n_bytes).view(dtype)


def _retain_freed_memory(n_bytes: int) -> None:
    """Let the C library retain what is freed: 64 MiB, and twice the bytes of the longest vector.

    Otherwise it takes new pages from the system for many a gradient or temporary, and for all gradients where those of
    a step before are freed at once.
    """
    if not _retained:
        torch.empty(_RETAINED_BYTES, dtype=torch.uint8)  # from then on twice as much
        _retained.append(2 * _RETAINED_BYTES)
    wanted = min(2 * n_bytes, _MAX_INT)
    if wanted > _retained[0]:
        _retained[0] = wanted
        with suppress(OSError, AttributeError):  # a C library without this setting
            ctypes.CDLL(None).mallopt(_M_TRIM_THRESHOLD, wanted)


def return_unused_memory() -> None:
    """Give the system the memory that nobody uses: what only cycles of dropped objects hold, buffers, freed blocks."""
    gc.collect()
    BUFFER_POOL.drop_free()
    with suppress(OSError, AttributeError):  # a C library that has no such call
        ctypes.CDLL(None).malloc_trim(0)


_retained: list[int] = []  # the bytes that the C library retains by now
_NUMBERS = counted()  # of the vectors in huge pages, of all pools: a pass may read vectors of several


class _Slab:
    """Memory in huge pages, from which vectors are taken one behind the other. It is freed when all of them are."""

    def __init__(self, n_bytes: int) -> None:
        """Reserve as many bytes. The system gives a page when it is written first."""
        self._memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel that was built without them
            self._memory.madvise(mmap.MADV_HUGEPAGE)
        self._start = 0

    def take(self, count: int, dtype: torch.dtype, place: int) -> Tensor | None:
        """Return a vector (count,) that begins `place` bytes behind the start of a page, or None if none fits."""
        start = self._start + (place - self._start) % _PAGE
        stop = start + count * dtype.itemsize
        if stop > len(self._memory):
            return None
        self._start = stop
        return torch.frombuffer(self._memory, dtype=dtype, count=count, offset=start)


class VectorPool:
    """Vectors (count,) that are reused."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.count = count
        self.dtype = dtype
        self.device = device
        self._slab: _Slab | None = None  # that new vectors are taken from
        if count * dtype.itemsize >= LONG_BYTES:
            _retain_freed_memory(count * dtype.itemsize)
        self.free: defaultdict[torch.dtype, list[Tensor]] = defaultdict(list)
        """Vectors that are not in use, by type."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy has: it takes memory of its own."""
        return self.__dict__ | {"_slab": None}

    def holds(self, count: int, dtype: torch.dtype) -> bool:
        """Return whether its vectors have this length and type, and are in the host's memory."""
        return (self.count, self.dtype) == (count, dtype) and (self.device is None or self.device.type == "cpu")

    def take(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return a vector (count,) with arbitrary content, of the pool's type or of another."""
        dtype = dtype or self.dtype
        free = self.free[dtype]
        if free:
            return free.pop()
        is_on_host = self.device is None or self.device.type == "cpu"
        if not (is_on_host and hasattr(mmap, "MADV_HUGEPAGE")) or self.count * dtype.itemsize < _HUGE_BYTES:
            return torch.empty(self.count, dtype=dtype, device=self.device)
        return self._in_huge_pages(dtype)

    def _in_huge_pages(self, dtype: torch.dtype) -> Tensor:
        place = next(_NUMBERS) * _APART % _PAGE
        vector = None if self._slab is None else self._slab.take(self.count, dtype, place)
        if vector is None:
            self._slab = _Slab(max(_SLAB_BYTES, _PAGE + self.count * dtype.itemsize))
            vector = self._slab.take(self.count, dtype, place)
        assert vector is not None, "a slab holds a vector"
        return vector

    def give(self, vectors: Iterable[Tensor]) -> None:
        """Return vectors to the pool. They must not be in use any more."""
        for vector in vectors:
            self.free[vector.dtype] += (vector,)
