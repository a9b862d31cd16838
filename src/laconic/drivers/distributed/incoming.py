"""Buffers that messages are received into, with room after them: the engine ends a process that gets more than fits.

A message that is longer than was promised then ends in that room, where it is found and refused.
"""

import datetime
import os
import time
from collections.abc import Callable
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.errors import WireError
from laconic.protocol.landing import Seen
from laconic.wire import (
    CHECKSUM_AT,
    CHECKSUM_BYTES,
    HEADER_BYTES,
    LEAD_BYTES,
    LONG_BYTES,
    PREFIX_BYTES,
    ChunkReader,
    Dense,
    LandedFrame,
    PayloadInfo,
    chunk_starts,
    goes_in_chunks,
    start_of,
)

SHORT_BYTES = 1 << 16
"""A frame of up to so many bytes is short: it is sent in one message. Signs of 500,000 parameters are."""
_SLACK_BYTES = 1 << 16  # after a payload; a sender's own check refuses a frame of any other length than it promises
_SHORT_SLACK_BYTES = 1 << 12
_SOON_S = 0.001  # a deadline that has passed still lets finished work end
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
        frame = torch.frombuffer(bytearray(self.view[:n_bytes]), dtype=torch.uint8)
        self.view[:end] = _MARKS[:end]
        if not is_all:
            self.clear()
            raise _too_long(n_bytes)
        return frame

    def clear(self, n_bytes: int = len(_MARKS)) -> None:
        """Forget the first bytes, once they are read; by default all."""
        self.view[:n_bytes] = _MARKS[:n_bytes]


def left_until(deadline: float) -> datetime.timedelta:
    """Return the time until time.monotonic() is `deadline`, at least long enough for finished work to end."""
    left_s = deadline - time.monotonic()
    return datetime.timedelta(seconds=left_s if left_s > _SOON_S else _SOON_S)


@final
class IncomingFrame:
    """A frame whose payload is still to come: in one message, or in chunks, each of which is read as it lands."""

    def __init__(self, message: memoryview, info: PayloadInfo) -> None:
        """Allocate a frame of which the message before the payload, which is `info`, has come."""
        self.n_bytes = HEADER_BYTES + info.encoded_bytes
        self._reader: ChunkReader | None = None
        if goes_in_chunks(info):
            start = start_of(bytes(message[:PREFIX_BYTES]))
            self._reader = ChunkReader(start, info.dtype, is_dense=info.kind == Dense.kind)
        else:
            start = bytes(message[: LEAD_BYTES if info.encoded_bytes >= LONG_BYTES else HEADER_BYTES])
        self._n_known = len(start)
        self._buffer = new_vector(self.n_bytes + _SLACK_BYTES, torch.uint8)
        self._view = memoryview(self._buffer.numpy())  # type: ignore[arg-type]
        self._view[: self._n_known] = start
        self._view[self.n_bytes : self.n_bytes + _MARK_BYTES] = _MARK
        self._checksum = torch.empty(0, dtype=torch.uint8)
        self._starts = range(0)  # of the chunks
        self._works: list[dist.Work] = []
        self._n_landed = 0

    def post(self, receive: Callable[[Tensor], dist.Work]) -> None:
        """Post the receives of all its messages. `receive` gets a tensor (n,) uint8, with room after the message."""
        if self._reader is None:
            self._works = [receive(self._buffer[self._n_known :])]
            return
        self._starts = chunk_starts(self.n_bytes - self._n_known)
        self._checksum = torch.empty(CHECKSUM_BYTES + _SLACK_BYTES, dtype=torch.uint8)
        buffers = (self._buffer[self._n_known + start :] for start in self._starts)
        self._works = [*map(receive, buffers), receive(self._checksum)]

    @property
    def in_chunks(self) -> bool:
        """Whether its payload comes in chunks."""
        return self._reader is not None

    @property
    def has_landed(self) -> bool:
        """Whether all of its messages have come."""
        return self._n_landed == len(self._works)

    def land(self, deadline: float, chunk: Callable[[Tensor, int], Seen] | None = None) -> bool:
        """Wait for its next message until time.monotonic() is `deadline`. Returns whether that is the last one.

        `chunk` gets the values (n,) of each chunk of a dense frame, not checked yet, and the number of those before; of
        other frames the payload (n,) uint8, and how many of its bytes have come. See `Landing` for what it returns.
        """
        number = self._n_landed
        self._works[number].wait(left_until(deadline))
        self._n_landed += 1
        is_last = self.has_landed
        if self._reader is not None and not is_last:
            start = self._n_known + self._starts[number]
            landed = self._buffer[start : min(start + self._starts.step, self.n_bytes)]
            if chunk is None:
                self._reader.read(landed)
            elif self._reader.values is not None:
                values = landed.view(self._reader.dtype)
                self._reader.read(landed, chunk(values, self._starts[number] // values.itemsize))
            else:
                self._reader.read(landed)
                chunk(self._buffer[HEADER_BYTES : self.n_bytes], start + landed.numel() - HEADER_BYTES)
        return is_last

    def read(self) -> Tensor | LandedFrame:
        """Return the frame, once all has landed. Raises WireError if more has arrived than its header promises."""
        if self._view[self.n_bytes : self.n_bytes + _MARK_BYTES] != _MARK:
            raise _too_long(self.n_bytes)
        data = self._buffer[: self.n_bytes]
        if self._reader is None:
            return data
        data[CHECKSUM_AT : CHECKSUM_AT + CHECKSUM_BYTES] = self._checksum[:CHECKSUM_BYTES]
        return LandedFrame(data, self._reader.checksum, self._reader.values)


def _too_long(n_bytes: int) -> WireError:
    return WireError(f"it sent more than the {n_bytes - HEADER_BYTES} payload bytes that its header promises")
