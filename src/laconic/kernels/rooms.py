"""Memory for frames and packets, used again when nobody looks at it any more.

A new piece of many megabytes costs a page fault for every 4 KiB of it. How long a frame is looked at, nobody knows
beforehand: a decoded packet's values are views of it, and a method may keep those. So each piece is lent as a tensor
of its own, and comes back when the last tensor that lies in it is gone.
"""

import weakref
from threading import RLock

import torch
from torch import Tensor

_PATIENCE = 256  # frames in which a free piece is not asked for, after which it goes when a new one is made


class Rooms:
    """Pieces of memory that are lent by the length wanted."""

    def __init__(self) -> None:
        self._free: list[tuple[int, Tensor]] = []  # when it was lent last, and the piece
        self._n_lent = 0
        self._choosing = RLock()  # for threads; what comes back meanwhile is appended

    def lend(self, n_bytes: int) -> Tensor:
        """(n_bytes,) uint8 with anything in it."""
        with self._choosing:
            self._n_lent += 1
            room = self._free_room(n_bytes)
        lent = room.numpy()[:n_bytes]  # an object of its own, which lives as long as any tensor over it
        weakref.finalize(lent, self._free.append, (self._n_lent, room)).atexit = False
        return torch.from_numpy(lent)

    def _free_room(self, n_bytes: int) -> Tensor:
        for place, (_, room) in enumerate(self._free):
            if n_bytes <= room.numel() <= 2 * n_bytes:
                del self._free[place]
                return room
        self._free[:] = [(lent, room) for lent, room in self._free if self._n_lent - lent < _PATIENCE]
        return torch.empty(n_bytes + n_bytes // 8, dtype=torch.uint8)  # the next one may be a little longer


ROOMS = Rooms()  # of this process
