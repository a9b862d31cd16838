"""Pools of buffers and vectors, which are reused because new memory is slow.

Each 4 KiB of a new large buffer cost a page fault. How long a frame is in use is not known beforehand: the values of a
decoded packet are views of it, and a method may store them. So a buffer is borrowed as a tensor, and is reclaimed when
the last tensor that shares its memory is gone.
"""

import weakref
from collections import defaultdict
from collections.abc import Iterable
from threading import RLock

import torch
from torch import Tensor

_SMALLEST_POOLED = 1 << 11
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


class VectorPool:
    """Vectors (count,) that are reused."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.count = count
        self.dtype = dtype
        self.device = device
        self.free: defaultdict[torch.dtype, list[Tensor]] = defaultdict(list)
        """Vectors that are not in use, by type."""

    def holds(self, count: int, dtype: torch.dtype) -> bool:
        """Return whether its vectors have this length and type, and are in the host's memory."""
        return (self.count, self.dtype) == (count, dtype) and (self.device is None or self.device.type == "cpu")

    def take(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return a vector (count,) with arbitrary content, of the pool's type or of another."""
        free = self.free[dtype or self.dtype]
        return free.pop() if free else torch.empty(self.count, dtype=dtype or self.dtype, device=self.device)

    def give(self, vectors: Iterable[Tensor]) -> None:
        """Return vectors to the pool. They must not be in use any more."""
        for vector in vectors:
            self.free[vector.dtype] += (vector,)
