"""The 32 bytes before every body. See FORMAT.md, section 1."""

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

import torch

VERSION = 1
HEAD_BYTES = 32
_HEAD = struct.Struct("<BBBBHBBIIQQ")
_CHECKSUM_AT = 12

ROLES: tuple[Literal["worker"], Literal["server"]] = ("worker", "server")
VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16)
VALUE_BITS = {torch.float32: 32, torch.float64: 64, torch.bfloat16: 16}

SKIP_KIND = 1  # "I send nothing this round", on purpose
VOID_KIND = 2  # "this round must not happen", some rank met inf or NaN


class WireError(ValueError):
    """A buffer that is not a frame of this format. Nothing of it may be used."""


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


def checksum(head: bytes, body: memoryview | bytes) -> int:
    """CRC-32 of the whole frame with the checksum's own four bytes taken as zero."""
    start = zlib.crc32(head[:_CHECKSUM_AT] + bytes(4) + head[_CHECKSUM_AT + 4 :])
    return zlib.crc32(body, start)


def write_head(head: Head, opening: Opening, body: memoryview) -> bytes:
    """The head's bytes, with the checksum over `body` filled in."""
    fields = [
        VERSION, opening.kind, ROLES.index(head.role), head.exchange, head.rank,
        VALUE_TYPES.index(opening.dtype), 0, head.round, 0, opening.body_bytes, opening.payload_bits,
    ]  # fmt: skip
    fields[8] = checksum(_HEAD.pack(*fields), body)
    return _HEAD.pack(*fields)


def body_bytes_of(head: bytes, most: int) -> int:
    """How many bytes follow this head; refuses more than `most` before anybody allocates them."""
    if len(head) != HEAD_BYTES:
        raise WireError(f"a head of {len(head)} bytes; it has {HEAD_BYTES}")
    _, opening, _ = _read_fields(head)
    if opening.body_bytes > most:
        raise WireError(f"a frame promises {opening.body_bytes} body bytes; at most {most} can belong to this vector")
    return opening.body_bytes


def read_head(data: memoryview) -> tuple[Head, Opening]:
    """Read and check the head of a whole frame, its checksum included.

    Raises WireError.
    """
    if len(data) < HEAD_BYTES:
        raise WireError(f"a frame of {len(data)} bytes is shorter than its head of {HEAD_BYTES}")
    raw = bytes(data[:HEAD_BYTES])
    head, opening, promised = _read_fields(raw)
    if opening.body_bytes != len(data) - HEAD_BYTES:
        raise WireError(f"the head promises {opening.body_bytes} body bytes, {len(data) - HEAD_BYTES} are there")
    found = checksum(raw, data[HEAD_BYTES:])
    if found != promised:
        raise WireError(f"checksum {found:#010x} of the frame is not the {promised:#010x} its head promises")
    return head, opening


def _read_fields(raw: bytes) -> tuple[Head, Opening, int]:
    version, kind, role, exchange, rank, dtype, zero, round_, crc, body_bytes, bits = _HEAD.unpack(raw)
    if version != VERSION:
        raise WireError(f"version {version} of the format; this is a reader of version {VERSION}")
    if role >= len(ROLES) or dtype >= len(VALUE_TYPES) or zero != 0:
        raise WireError(f"role {role}, value type {dtype}, reserved byte {zero}: not of this version")
    head = Head(role=ROLES[role], rank=rank, round=round_, exchange=exchange)
    return head, Opening(kind=kind, dtype=VALUE_TYPES[dtype], body_bytes=body_bytes, payload_bits=bits), crc
