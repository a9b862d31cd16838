"""The 32 bytes before every body. See FORMAT.md, section 1."""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import torch

from laconic.errors import WireError

VERSION = 1
HEAD_BYTES = 32
_HEAD = struct.Struct("<BBBBHBBIIQQ")
_CHECKSUM_AT = 12

ROLES: tuple[Literal["worker"], Literal["server"]] = ("worker", "server")
VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16)
VALUE_BITS = {torch.float32: 32, torch.float64: 64, torch.bfloat16: 16}

SKIP_KIND = 1  # "I send nothing this round", on purpose
VOID_KIND = 2  # "this round must not happen", some rank met inf or NaN


@dataclass(frozen=True, kw_only=True)
class Head:
    """Who sent a frame, and when. `rank` is the worker's or the server's number, `exchange` counts within a round."""

    role: Literal["worker", "server"]
    rank: int
    round: int
    exchange: int = 0


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a head says about the body that follows."""

    kind: int
    dtype: torch.dtype
    body_bytes: int
    payload_bits: int
    is_split: bool = False  # the body travels another way, and the checksum is of the head alone


def checksum(head: bytes, body: memoryview | bytes) -> int:
    """CRC-32 of the whole frame with the checksum's own four bytes taken as zero."""
    start = zlib.crc32(head[:_CHECKSUM_AT] + bytes(4) + head[_CHECKSUM_AT + 4 :])
    return zlib.crc32(body, start)


def write_head(head: Head, opening: Opening, body: memoryview | bytes) -> bytes:
    """The head's bytes, with the checksum over `body` filled in. A split frame's body is not there: give none."""
    fields = [
        VERSION, opening.kind, ROLES.index(head.role), head.exchange, head.rank,
        VALUE_TYPES.index(opening.dtype), int(opening.is_split), head.round, 0, opening.body_bytes,
        opening.payload_bits,
    ]  # fmt: skip
    fields[8] = checksum(_HEAD.pack(*fields), body)
    return _HEAD.pack(*fields)


def read_opening(raw: bytes, most: int, *, may_be_split: bool = False) -> Opening:
    """What a head says about its body, before anybody allocates that; refuses more than `most` bytes of it.

    may_be_split: whether sender and reader have agreed on another way for bodies.
    Raises WireError.
    """
    _, opening, _ = _read_fields(raw)
    if opening.is_split:
        if not may_be_split:
            raise WireError("reserved byte 1: a frame whose body travels another way, and none was agreed on")
        read_split_head(raw)
    if opening.body_bytes > most:
        raise WireError(f"a frame promises {opening.body_bytes} body bytes; at most {most} can belong to this vector")
    return opening


def read_split_head(raw: bytes) -> tuple[Head, Opening]:
    """Read and check the head of a split frame: all that its checksum is of.

    Raises WireError.
    """
    head, opening, promised = _read_fields(raw)
    if not opening.is_split or not opening.body_bytes:
        raise WireError(f"reserved byte {int(opening.is_split)}, {opening.body_bytes} body bytes: not of a split frame")
    _compare(checksum(raw, b""), promised)
    return head, opening


def read_head(data: memoryview) -> tuple[Head, Opening]:
    """Read and check the head of a whole frame, its checksum included.

    Raises WireError.
    """
    if len(data) < HEAD_BYTES:
        raise WireError(f"a frame of {len(data)} bytes is shorter than its head of {HEAD_BYTES}")
    raw = bytes(data[:HEAD_BYTES])
    head, opening, promised = _read_fields(raw)
    if opening.is_split:
        raise WireError("reserved byte 1: a frame whose body travels another way has none in this buffer")
    if opening.body_bytes != len(data) - HEAD_BYTES:
        raise WireError(f"the head promises {opening.body_bytes} body bytes, {len(data) - HEAD_BYTES} are there")
    _compare(checksum(raw, data[HEAD_BYTES:]), promised)
    return head, opening


def _compare(found: int, promised: int) -> None:
    if found != promised:
        raise WireError(f"checksum {found:#010x} of the frame is not the {promised:#010x} its head promises")


def _read_fields(raw: bytes) -> tuple[Head, Opening, int]:
    if len(raw) != HEAD_BYTES:
        raise WireError(f"a head of {len(raw)} bytes; it has {HEAD_BYTES}")
    version, kind, role, exchange, rank, dtype, split, round_, crc, body_bytes, bits = _HEAD.unpack(raw)
    if version != VERSION:
        raise WireError(f"version {version} of the format; this is a reader of version {VERSION}")
    if role >= len(ROLES) or dtype >= len(VALUE_TYPES) or split > 1:
        raise WireError(f"role {role}, value type {dtype}, reserved byte {split}: not of this version")
    head = Head(role=ROLES[role], rank=rank, round=round_, exchange=exchange)
    opening = Opening(
        kind=kind, dtype=VALUE_TYPES[dtype], body_bytes=body_bytes, payload_bits=bits, is_split=bool(split)
    )
    return head, opening, crc
