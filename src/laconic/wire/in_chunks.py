"""Long frames in messages of which none needs the frame's checksum beforehand. FORMAT.md, section 1.4."""

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

from laconic.kernels.api import joined_checksum, largest_and_checksum
from laconic.wire.codec import CHUNKED_KINDS, LEAD_BYTES, LONG_BYTES, BorrowedFrame
from laconic.wire.head import CHECKSUM_AT, CHECKSUM_BYTES, PayloadInfo, checksum, checksum_on, with_checksum
from laconic.wire.measured import Measured

CHUNK_BYTES = 1 << 21
"""Of values in one message, at least; the last one of a frame may have fewer."""
_MAX_CHUNKS = 8
PREFIX_BYTES = LEAD_BYTES - CHECKSUM_BYTES
"""Of the message before the values: header and fields, without the checksum."""
_COUNT_AT, _AFTER_CHECKSUM = LEAD_BYTES - CHECKSUM_BYTES, CHECKSUM_AT + CHECKSUM_BYTES


def goes_in_chunks(info: PayloadInfo) -> bool:
    """Return whether a frame with this payload travels in chunks, its checksum last."""
    return info.encoded_bytes >= LONG_BYTES and info.kind in CHUNKED_KINDS


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
    """A frame to send; each chunk is read for the checksum just before it is sent, unless that is known."""

    def __init__(self, data: Tensor | BorrowedFrame) -> None:
        """Take a frame that goes in chunks. Its values must not change until they are sent."""
        if isinstance(data, BorrowedFrame):
            start, self._values, self._fields, self._is_sealed = data.start, data.values, data.fields, False
            self._late = data.late
            if data.checksum is not None:
                found = joined_checksum(checksum(start, data.fields), data.checksum, data.values.numel())
                start, self._is_sealed = with_checksum(start, found), True
        else:
            start, self._values, self._is_sealed = bytes(data[:LEAD_BYTES].numpy()), data[LEAD_BYTES:], True
            self._fields, self._late = b"", None
        self._start = start
        self.prefix = torch.frombuffer(bytearray(prefix_of(start)), dtype=torch.uint8)
        """(PREFIX_BYTES,) uint8."""

    def messages(self) -> Iterator[Tensor]:
        """Return the messages after the prefix, each (n,) uint8: the values in chunks, then the checksum."""
        found = checksum(self._start, b"")
        for chunk in self._chunks():
            if not self._is_sealed:
                found = checksum_on(memoryview(chunk.numpy()), found)  # type: ignore[arg-type]
            yield chunk
        sealed = self._start if self._is_sealed else with_checksum(self._start, found)
        yield torch.frombuffer(bytearray(sealed[CHECKSUM_AT:_AFTER_CHECKSUM]), dtype=torch.uint8)

    def _chunks(self) -> Iterator[Tensor]:
        """Return all bytes behind the start, in chunks; the one with fields is a copy."""
        length, at = chunk_starts(len(self._fields) + self._values.numel()).step, 0
        if self._fields:
            at = length - len(self._fields)
            fields = torch.frombuffer(bytearray(self._fields), dtype=torch.uint8)
            self._make(at)
            yield torch.cat([fields, self._values[:at]])
        for begin in range(at, self._values.numel(), length):
            self._make(begin + length)
            yield self._values[begin : begin + length]

    def _make(self, n_bytes: int) -> None:
        """Make as many of the values, where they are made late."""
        if self._late is not None:
            self._late.make(n_bytes)


@final
class ChunkReader:
    """Reads the chunks of a frame as they come, for its checksum and, if it is dense, for the largest magnitude."""

    def __init__(self, start: bytes, dtype: torch.dtype, *, is_dense: bool = True) -> None:
        """Begin with the bytes (LEAD_BYTES,) before the chunks, zero for the checksum, and the values' type."""
        self._found = checksum(start, b"")  # of all bytes but the values of a dense frame
        self._n_bytes = 0  # of those
        self.values = Measured() if is_dense else None
        """What is known of a dense frame's values; None of others."""
        self.dtype = dtype

    @property
    def checksum(self) -> int:
        """That of all bytes so far."""
        of_values = None if self.values is None else self.values.checksum
        return self._found if of_values is None else joined_checksum(self._found, of_values, self._n_bytes)

    def read(self, chunk: Tensor, seen: tuple[float, int] | None = None) -> None:
        """Read the next chunk, (n,) uint8; of a dense frame full values, unless their largest and CRC-32 were seen."""
        if self.values is None:
            self._found = checksum_on(memoryview(chunk.numpy()), self._found)  # type: ignore[arg-type]
            return
        n_bytes = chunk.numel()
        self.values.add(*(largest_and_checksum(chunk.view(self.dtype)) if seen is None else seen), n_bytes)
        self._n_bytes += n_bytes
