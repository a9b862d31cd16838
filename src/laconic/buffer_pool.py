"""A pool of buffers for frames and packets, reused when no tensor looks at them any more.

A new buffer of many megabytes costs a page fault for every 4 KiB. How long a frame is used is not known beforehand: the
values of a decoded packet are views of it, and a method may keep them. So each buffer is borrowed as a tensor of its
own, and is reclaimed when the last tensor over it is gone.
"""

import weakref
from threading import RLock

import torch
from torch import Tensor

_PATIENCE = 256  # a buffer that was free for so many frames is dropped when a new one is allocated


class BufferPool:
    """Buffers, borrowed by length."""

    def __init__(self) -> None:
        self._free: list[tuple[int, Tensor]] = []  # when it was borrowed last, and the buffer
        self._n_borrowed = 0
        self._choosing = RLock()  # between threads; reclaiming only appends

    def borrow(self, n_bytes: int) -> Tensor:
        """Return a buffer (n_bytes,) uint8 with arbitrary content."""
        with self._choosing:
            self._n_borrowed += 1
            buffer = self._free_buffer(n_bytes)
        borrowed = buffer.numpy()[:n_bytes]  # an array of its own, which lives as long as any tensor over it
        weakref.finalize(borrowed, self._free.append, (self._n_borrowed, buffer)).atexit = False
        return torch.from_numpy(borrowed)

    def _free_buffer(self, n_bytes: int) -> Tensor:
        for place, (_, buffer) in enumerate(self._free):
            if n_bytes <= buffer.numel() <= 2 * n_bytes:
                del self._free[place]
                return buffer
        self._free[:] = [
            (borrowed, buffer) for borrowed, buffer in self._free if self._n_borrowed - borrowed < _PATIENCE
        ]
        return torch.empty(n_bytes + n_bytes // 8, dtype=torch.uint8)  # the next frame may be slightly longer


BUFFER_POOL = BufferPool()  # of this process


class VectorPool:
    """Vectors (count,) for use again. A large one that is new costs a page fault for every 4 KiB of it."""

    def __init__(self, count: int, dtype: torch.dtype, device: torch.device | None = None) -> None:
        self.count = count
        self.dtype = dtype
        self.device = device
        self._free: dict[torch.dtype, list[Tensor]] = {}

    def take(self, dtype: torch.dtype | None = None) -> Tensor:
        """A vector with anything in it, of the pool's type or of another."""
        free = self._free.get(dtype or self.dtype)
        return free.pop() if free else torch.empty(self.count, dtype=dtype or self.dtype, device=self.device)

    def give(self, vector: Tensor) -> None:
        """Take back what nobody uses any more."""
        self._free.setdefault(vector.dtype, []).append(vector)
