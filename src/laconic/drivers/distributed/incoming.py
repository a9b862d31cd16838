"""Buffers that messages are received into, with room after them: the engine ends a process that gets more than fits.

A message that is longer than was promised then ends in that room, where it is found and refused.
"""

import os
from typing import final

import torch
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.errors import WireError
from laconic.wire import HEADER_BYTES

SHORT_BYTES = 1 << 14
"""A frame of up to so many bytes is short: it is sent in one message."""
_SLACK_BYTES = 1 << 16  # after a payload; a sender's own check refuses a frame of any other length than it promises
_SHORT_SLACK_BYTES = 1 << 12
_MARK_BYTES = 8
_MARK = os.urandom(_MARK_BYTES)  # follows the last byte of a payload
_MARKS = _MARK * ((SHORT_BYTES + _SHORT_SLACK_BYTES) // _MARK_BYTES)


class HeaderMessage:
    """Where to receive a short frame, or the header of another one; it may be used again once that is read."""

    def __init__(self) -> None:
        self.data = torch.empty(len(_MARKS), dtype=torch.uint8)
        """(n,) uint8, which begins with the header."""
        self.view = memoryview(self.data.numpy())  # type: ignore[arg-type]
        """The same memory."""
        self.clear()

    def short_frame(self, n_bytes: int) -> Tensor:
        """Return the frame of `n_bytes` that has come, in memory of its own. Raises WireError if more has come."""
        end = n_bytes + _MARK_BYTES
        is_all = self.view[n_bytes:end] == _MARKS[n_bytes:end]
        frame = self.data[:n_bytes].clone()
        self.clear(end)
        if not is_all:
            self.clear()
            raise _too_long(n_bytes)
        return frame

    def clear(self, n_bytes: int = len(_MARKS)) -> None:
        """Forget the first bytes, once they are read; by default all."""
        self.view[:n_bytes] = _MARKS[:n_bytes]


@final
class IncomingFrame:
    """A frame whose payload is still to come."""

    def __init__(self, start: bytes, payload_bytes: int) -> None:
        """Allocate a frame that begins with `start`, its header or more, and has so many bytes of payload."""
        self.n_bytes = HEADER_BYTES + payload_bytes
        self.has_payload = payload_bytes > 0
        self._n_known = len(start)
        self._buffer = new_vector(self.n_bytes + (_SLACK_BYTES if payload_bytes else 0), torch.uint8)
        self._view = memoryview(self._buffer.numpy())  # type: ignore[arg-type]
        self._view[: self._n_known] = start
        if payload_bytes:
            self._view[self.n_bytes : self.n_bytes + _MARK_BYTES] = _MARK

    @property
    def payload(self) -> Tensor:
        """Where to receive the payload, or the rest of it, (n,) uint8, with the room after it."""
        return self._buffer[self._n_known :]

    def read(self) -> Tensor:
        """Return the frame, (n,) uint8. Raises WireError if more has arrived than its header promises."""
        if self.has_payload and self._view[self.n_bytes : self.n_bytes + _MARK_BYTES] != _MARK:
            raise _too_long(self.n_bytes)
        return self._buffer[: self.n_bytes]


def _too_long(n_bytes: int) -> WireError:
    return WireError(f"it sent more than the {n_bytes - HEADER_BYTES} payload bytes that its header promises")
