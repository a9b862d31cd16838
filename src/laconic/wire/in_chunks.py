"""Long dense frames in messages of which none needs the frame's checksum beforehand. FORMAT.md, section 1.4."""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from laconic.kernels.api import absolute_maximum
from laconic.wire.codec import LEAD_BYTES, LONG_BYTES, BorrowedFrame
from laconic.wire.head import CHECKSUM_AT, CHECKSUM_BYTES, PayloadInfo, checksum, checksum_on, with_checksum
from laconic.wire.packets.dense import Dense

CHUNK_BYTES = 1 << 21
"""Of values in one message, at least; the last one of a frame may have fewer."""
_MAX_CHUNKS = 8
PREFIX_BYTES = LEAD_BYTES - CHECKSUM_BYTES
"""Of the message before the values: header and fields, without the checksum."""
_COUNT_AT, _AFTER_CHECKSUM = LEAD_BYTES - CHECKSUM_BYTES, CHECKSUM_AT + CHECKSUM_BYTES


def goes_in_chunks(info: PayloadInfo) -> bool:
    """Return whether a frame with this payload travels in chunks, its checksum last."""
    return info.encoded_bytes >= LONG_BYTES and info.kind == Dense.kind


def chunk_starts(n_bytes: int) -> range:
    """Return where the chunks of so many bytes of values begin; the step is their length."""
    return range(0, n_bytes, max(CHUNK_BYTES, -(-n_bytes // (8 * _MAX_CHUNKS)) * 8))


def prefix_of(start: bytes) -> bytes:
    """Return the prefix of a frame that begins with `start`, (LEAD_BYTES,): its last field fills the checksum."""
    return start[:CHECKSUM_AT] + start[_COUNT_AT:] + start[_AFTER_CHECKSUM:_COUNT_AT]


def start_of(prefix: bytes) -> bytes:
    """Return the bytes (LEAD_BYTES,) that a frame begins with, zero for its checksum; the inverse of `prefix_of`."""
    field = prefix[CHECKSUM_AT:_AFTER_CHECKSUM]
    return prefix[:CHECKSUM_AT] + bytes(CHECKSUM_BYTES) + prefix[_AFTER_CHECKSUM:] + field


@final
class OutgoingChunks:
    """A frame to send; each chunk is read for the checksum just before it is sent."""

    def __init__(self, data: Tensor | BorrowedFrame) -> None:
        """Take a frame that goes in chunks. Its values must not change until they are sent."""
        if isinstance(data, BorrowedFrame):
            start, self._values, self._is_sealed = data.start, data.values, False
        else:
            start, self._values, self._is_sealed = bytes(data[:LEAD_BYTES].numpy()), data[LEAD_BYTES:], True
        self._start = start
        self.prefix = torch.frombuffer(bytearray(prefix_of(start)), dtype=torch.uint8)
        """(PREFIX_BYTES,) uint8."""

    def messages(self) -> Iterator[Tensor]:
        """Return the messages after the prefix, each (n,) uint8: the values in chunks, then the checksum."""
        found = checksum(self._start, b"")
        starts = chunk_starts(self._values.numel())
        for at in starts:
            chunk = self._values[at : at + starts.step]
            if not self._is_sealed:
                found = checksum_on(memoryview(chunk.numpy()), found)  # type: ignore[arg-type]
            yield chunk
        sealed = self._start if self._is_sealed else with_checksum(self._start, found)
        yield torch.frombuffer(bytearray(sealed[CHECKSUM_AT:_AFTER_CHECKSUM]), dtype=torch.uint8)


@final
class ChunkReader:
    """Reads the chunks of a frame as they come, for its checksum and for the largest magnitude of its values."""

    def __init__(self, start: bytes, dtype: torch.dtype) -> None:
        """Begin with the bytes (LEAD_BYTES,) before the values, zero for the checksum, and the values' type."""
        self.checksum = checksum(start, b"")
        self.absolute_maximum = 0.0
        """NaN if a value is NaN."""
        self.dtype = dtype

    def read(self, chunk: Tensor) -> None:
        """Read the next chunk, (n,) uint8 of full values."""
        self.checksum = checksum_on(memoryview(chunk.numpy()), self.checksum)  # type: ignore[arg-type]
        largest = absolute_maximum(chunk.view(self.dtype))
        if self.absolute_maximum == self.absolute_maximum and not largest <= self.absolute_maximum:
            self.absolute_maximum = largest
