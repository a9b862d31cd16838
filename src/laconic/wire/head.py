"""The 32 bytes before every payload. See FORMAT.md, section 1."""

import struct
from dataclasses import dataclass
from typing import Literal

import torch

from laconic.errors import WireError
from laconic.kernels.api import crc32
from laconic.wire.control import CONTROLS

FORMAT_VERSION = 2
HEADER_BYTES = 32
_HEADER = struct.Struct("<BBHHHIIIIHIH")  # the last four are two numbers of 48 bits
CHECKSUM_AT, CHECKSUM_BYTES = 12, 4
_CRC, _NO_CRC = struct.Struct("<I"), bytes(CHECKSUM_BYTES)
_LOW = (1 << 32) - 1
_FEW_BYTES = 1 << 12  # cost less to copy than another call
_PROMISE = struct.Struct("<2xH16xIH")

ROLES: tuple[Literal["worker"], Literal["server"]] = ("worker", "server")
VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16)
_NUMBERS = {dtype: number for number, dtype in enumerate(VALUE_TYPES)}
_N_VALUE_TYPES = len(VALUE_TYPES)
VALUE_BITS = {torch.float32: 32, torch.float64: 64, torch.bfloat16: 16}

# Bits of the flags; 1 and 2 hold the value type.
_SERVER, _SPLIT, _NOT_DELIVERED, _SET_DIFFERS = 1, 8, 16, 32
_VALUE_TYPE_AT, _FLAGS_END = 1, 64


@dataclass(frozen=True, kw_only=True)
class Header:
    """Who sent a frame, and when."""

    role: Literal["worker", "server"]
    """Whether the sender acts as a worker or as a server."""
    rank: int
    """Number of that worker or server."""
    round: int
    """Number of the round."""
    exchange: int = 0
    """Number of the exchange within the round, below 2**16."""
    weight: int = 1
    """Number of samples behind the packet, 1 .. 2**32 - 1; 1 where packets are not weighted."""
    delivered: bool = True
    """In a server's frame: whether the receiver's own packet of this exchange came in time."""
    set_differs: bool = False
    """Whether the sender used other parameters in this round than the ranks have agreed on."""


@dataclass(kw_only=True, slots=True)
class PayloadInfo:
    """What a header says about the payload that follows."""

    kind: int
    """Number of the packet kind or control frame."""
    dtype: torch.dtype
    """Type of the values on the wire."""
    encoded_bytes: int
    """Length of the payload in bytes."""
    payload_bits: int
    """Information bits of the payload."""
    is_split: bool = False
    """Whether the payload is sent separately; the checksum then covers the header alone."""


def checksum(header: bytes, payload: memoryview | bytes) -> int:
    """Return the CRC-32 of the complete frame, with the four bytes of the checksum itself set to zero."""
    start = crc32(header[:CHECKSUM_AT] + _NO_CRC + header[CHECKSUM_AT + 4 :])
    return crc32(payload, start)


def checksum_on(more: memoryview | bytes, found: int) -> int:
    """Return the CRC-32 of bytes of which `found` is that of all before `more`."""
    return crc32(more, found)


def write_header(header: Header, info: PayloadInfo, *payload: memoryview | bytes) -> bytes:
    """Return the header's bytes, checksum included.

    Args:
        header: Who sends the frame, and when.
        info: What to say about the payload.
        *payload: The bytes that the checksum covers too, in one part or several; none for a split frame.
    """
    raw = write_unsealed(header, info)
    found = crc32(raw)  # `checksum`, while its own bytes are zero
    for part in payload:
        found = crc32(part, found)
    return with_checksum(raw, found)


def sealed(
    header: Header, kind: int, dtype: torch.dtype, encoded_bytes: int, payload_bits: int, payload: bytes
) -> bytearray:
    """Return the bytes of a frame in one piece.

    Args:
        header: Who sends the frame, and when.
        kind: Number of the packet kind or control frame.
        dtype: Type of the values on the wire.
        encoded_bytes: Length of the payload.
        payload_bits: Information bits of the payload.
        payload: Its bytes.
    """
    frame = bytearray(_fields(header, kind, dtype, encoded_bytes, payload_bits, 0) + payload)
    _CRC.pack_into(frame, CHECKSUM_AT, crc32(frame))
    return frame


def write_unsealed(header: Header, info: PayloadInfo) -> bytes:
    """Return the header's bytes with zero in place of the checksum; arguments as for `write_header`."""
    return _fields(header, info.kind, info.dtype, info.encoded_bytes, info.payload_bits, _SPLIT * info.is_split)


def _fields(header: Header, kind: int, dtype: torch.dtype, encoded_bytes: int, payload_bits: int, flags: int) -> bytes:
    flags |= (
        _SERVER * (header.role == "server") | _NUMBERS[dtype] << _VALUE_TYPE_AT
        | _NOT_DELIVERED * (not header.delivered) | _SET_DIFFERS * header.set_differs
    )  # fmt: skip
    return _HEADER.pack(
        FORMAT_VERSION, kind, flags, header.rank, header.exchange, header.round, 0, header.weight,
        encoded_bytes & _LOW, encoded_bytes >> 32, payload_bits & _LOW, payload_bits >> 32,
    )  # fmt: skip


def with_checksum(start: bytes, found: int) -> bytes:
    """Return a frame's first bytes, the header or more, with this checksum written into them."""
    return start[:CHECKSUM_AT] + _CRC.pack(found) + start[CHECKSUM_AT + 4 :]


def promised_bytes(raw: bytes | memoryview) -> tuple[int, bool]:
    """Return how many payload bytes a frame's header promises, and whether it is split. Nothing else is checked."""
    flags, low, high = _PROMISE.unpack_from(raw)
    return high << 32 | low, bool(flags & _SPLIT)


def read_payload_info(raw: bytes, max_bytes: int, *, may_be_split: bool = False) -> PayloadInfo:
    """Return what a header says about its payload, so that memory can be allocated for it.

    Args:
        raw: (32,) bytes, the header.
        max_bytes: Upper bound on the payload.
        may_be_split: Whether sender and reader have agreed to send payloads separately.

    Raises:
        WireError: The header is not valid, or it promises more than `max_bytes`.
    """
    _, info, _ = _read_fields(raw)
    if info.is_split:
        if not may_be_split:
            raise WireError("a split frame, whose payload travels apart from its header, and none was agreed on")
        read_split_header(raw)
    if info.encoded_bytes > max_bytes:
        raise WireError(
            f"a frame promises {info.encoded_bytes} payload bytes; at most {max_bytes} can belong to this vector"
        )
    return info


def read_split_header(raw: bytes) -> tuple[Header, PayloadInfo]:
    """Read and check the header of a split frame, its checksum included.

    Raises:
        WireError: The bytes are not a valid header of a split frame.
    """
    header, info, promised = _read_fields(raw)
    if not info.is_split or not info.encoded_bytes or info.kind in CONTROLS:
        raise WireError(
            f"split flag {int(info.is_split)}, kind {info.kind}, {info.encoded_bytes} payload bytes: not of a split "
            "frame"
        )
    found = checksum(raw, b"")
    if found != promised:
        raise _damaged(found, promised)
    return header, info


def read_header(data: memoryview, found: int | None = None) -> tuple[Header, PayloadInfo]:
    """Read the header of a complete frame, and check the frame's length and checksum.

    Args:
        data: The frame's bytes.
        found: The checksum that the frame has, if it is known.

    Raises:
        WireError: The header is not valid, or does not belong to this payload.
    """
    n_bytes = data.nbytes
    if n_bytes < HEADER_BYTES:
        raise WireError(f"a frame of {n_bytes} bytes is shorter than its header of {HEADER_BYTES}")
    raw = bytes(data[:HEADER_BYTES])
    header, info, promised = _read_fields(raw)
    if info.is_split:
        raise WireError("a split frame, whose payload travels apart from its header, in one buffer with it")
    if info.encoded_bytes != n_bytes - HEADER_BYTES:
        raise WireError(f"the header promises {info.encoded_bytes} payload bytes, {n_bytes - HEADER_BYTES} are there")
    if found is None:  # `checksum`
        if n_bytes <= _FEW_BYTES:
            found = crc32(raw[:CHECKSUM_AT] + _NO_CRC + bytes(data[CHECKSUM_AT + 4 :]))
        else:
            found = crc32(data[HEADER_BYTES:], crc32(raw[:CHECKSUM_AT] + _NO_CRC + raw[CHECKSUM_AT + 4 :]))
    if found != promised:
        raise _damaged(found, promised)
    return header, info


def _damaged(found: int, promised: int) -> WireError:
    return WireError(f"checksum {found:#010x} of the frame is not the {promised:#010x} its header promises")


def _read_fields(raw: bytes) -> tuple[Header, PayloadInfo, int]:
    """Return what a header says, and the checksum that it promises. Raises WireError unless it is of this version."""
    try:
        version, kind, flags, rank, exchange, round_, crc, weight, low, high, bits_low, bits_high = _HEADER.unpack(raw)
    except struct.error:
        raise WireError(f"a header of {len(raw)} bytes; it has {HEADER_BYTES}") from None
    dtype = flags >> _VALUE_TYPE_AT & 3
    if version != FORMAT_VERSION:
        raise WireError(f"version {version} of the format; this is a reader of version {FORMAT_VERSION}")
    if dtype >= _N_VALUE_TYPES or flags >= _FLAGS_END:
        raise WireError(f"value type {dtype}, flags {flags:#06x}: not of this version")
    if not weight:
        raise WireError("weight 0; a packet has at least one sample behind it")
    header = Header(
        role=ROLES[flags & _SERVER], rank=rank, round=round_, exchange=exchange, weight=weight,
        delivered=not flags & _NOT_DELIVERED, set_differs=bool(flags & _SET_DIFFERS),
    )  # fmt: skip
    info = PayloadInfo(
        kind=kind, dtype=VALUE_TYPES[dtype], encoded_bytes=high << 32 | low, payload_bits=bits_high << 32 | bits_low,
        is_split=bool(flags & _SPLIT),
    )  # fmt: skip
    return header, info, crc
