"""The 32 bytes before every payload. See FORMAT.md, section 1."""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import torch

from laconic.errors import WireError

VERSION = 1
HEADER_BYTES = 32
_HEADER = struct.Struct("<BBBBHBBIIQQ")
_CHECKSUM_AT = 12

ROLES: tuple[Literal["worker"], Literal["server"]] = ("worker", "server")
VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16)
VALUE_BITS = {torch.float32: 32, torch.float64: 64, torch.bfloat16: 16}

SKIP_KIND = 1  # the sender leaves out this round on purpose
ABORT_KIND = 2  # the round is aborted, since a rank met inf or NaN


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
    """Number of the exchange within the round."""


@dataclass(frozen=True, kw_only=True)
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
    start = zlib.crc32(header[:_CHECKSUM_AT] + bytes(4) + header[_CHECKSUM_AT + 4 :])
    return zlib.crc32(payload, start)


def write_header(header: Header, info: PayloadInfo, payload: memoryview | bytes) -> bytes:
    """Return the header's bytes, checksum included.

    Args:
        header: Who sends the frame, and when.
        info: What to say about the payload.
        payload: The bytes that the checksum covers too; empty for a split frame.
    """
    fields = [
        VERSION, info.kind, ROLES.index(header.role), header.exchange, header.rank,
        VALUE_TYPES.index(info.dtype), int(info.is_split), header.round, 0, info.encoded_bytes,
        info.payload_bits,
    ]  # fmt: skip
    fields[8] = checksum(_HEADER.pack(*fields), payload)
    return _HEADER.pack(*fields)


def read_payload_info(raw: bytes, max_count: int, *, may_be_split: bool = False) -> PayloadInfo:
    """Return what a header says about its payload, so that memory can be allocated for it.

    Args:
        raw: (32,) bytes, the header.
        max_count: Upper bound on the payload, in bytes.
        may_be_split: Whether sender and reader have agreed to send payloads separately.

    Raises:
        WireError: The header is not valid, or it promises more than `max_count` bytes.
    """
    _, info, _ = _read_fields(raw)
    if info.is_split:
        if not may_be_split:
            raise WireError("reserved byte 1: a frame whose payload travels another way, and none was agreed on")
        read_split_header(raw)
    if info.encoded_bytes > max_count:
        raise WireError(
            f"a frame promises {info.encoded_bytes} payload bytes; at most {max_count} can belong to this vector"
        )
    return info


def read_split_header(raw: bytes) -> tuple[Header, PayloadInfo]:
    """Read and check the header of a split frame, its checksum included.

    Raises:
        WireError: The bytes are not a valid header of a split frame.
    """
    header, info, promised = _read_fields(raw)
    if not info.is_split or not info.encoded_bytes:
        raise WireError(f"reserved byte {int(info.is_split)}, {info.encoded_bytes} payload bytes: not of a split frame")
    _compare(checksum(raw, b""), promised)
    return header, info


def read_header(data: memoryview) -> tuple[Header, PayloadInfo]:
    """Read the header of a complete frame, and check the frame's length and checksum.

    Args:
        data: The frame's bytes.

    Raises:
        WireError: The header is not valid, or does not belong to this payload.
    """
    if len(data) < HEADER_BYTES:
        raise WireError(f"a frame of {len(data)} bytes is shorter than its header of {HEADER_BYTES}")
    raw = bytes(data[:HEADER_BYTES])
    header, info, promised = _read_fields(raw)
    if info.is_split:
        raise WireError("reserved byte 1: a frame whose payload travels another way has none in this buffer")
    if info.encoded_bytes != len(data) - HEADER_BYTES:
        raise WireError(f"the header promises {info.encoded_bytes} payload bytes, {len(data) - HEADER_BYTES} are there")
    _compare(checksum(raw, data[HEADER_BYTES:]), promised)
    return header, info


def _compare(found: int, promised: int) -> None:
    if found != promised:
        raise WireError(f"checksum {found:#010x} of the frame is not the {promised:#010x} its header promises")


def _read_fields(raw: bytes) -> tuple[Header, PayloadInfo, int]:
    if len(raw) != HEADER_BYTES:
        raise WireError(f"a header of {len(raw)} bytes; it has {HEADER_BYTES}")
    version, kind, role, exchange, rank, dtype, split, round_, crc, encoded_bytes, bits = _HEADER.unpack(raw)
    if version != VERSION:
        raise WireError(f"version {version} of the format; this is a reader of version {VERSION}")
    if role >= len(ROLES) or dtype >= len(VALUE_TYPES) or split > 1:
        raise WireError(f"role {role}, value type {dtype}, reserved byte {split}: not of this version")
    header = Header(role=ROLES[role], rank=rank, round=round_, exchange=exchange)
    info = PayloadInfo(
        kind=kind, dtype=VALUE_TYPES[dtype], encoded_bytes=encoded_bytes, payload_bits=bits, is_split=bool(split)
    )
    return header, info, crc
