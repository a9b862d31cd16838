"""Frames as bytes: encoded, damaged, and sealed again without the library's help."""

import dataclasses
import struct
import zlib

import torch
from torch import Tensor

from laconic.wire import HEADER_BYTES, Control, Frame, Header, Packet, encode

VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16)
KEY = 0x4806654E26238EC1
HEADER = Header(role="worker", rank=3, round=7)


def bytes_of(packet: Packet, header: Header = HEADER) -> bytes:
    """The encoded frame of a packet."""
    return bytes(encode(Frame(header=header, packet=packet)).numpy())


def control_bytes_of(control: Control, header: Header = HEADER, used: tuple[bool, ...] = ()) -> bytes:
    """An encoded control frame."""
    return bytes(encode(Frame(header=header, control=control, used=used)).numpy())


def resealed(data: bytes | bytearray) -> bytes:
    """The same frame with a checksum that matches, written without the library's help."""
    blank = bytes(data[:12]) + bytes(4) + bytes(data[16:])
    return blank[:12] + struct.pack("<I", zlib.crc32(blank)) + blank[16:]


def patched(data: bytes, at: int, kind: str, value: int) -> bytes:
    """The frame with one little-endian field overwritten, its checksum matching."""
    changed = bytearray(data)
    struct.pack_into("<" + kind, changed, at, value)
    return resealed(changed)


def with_value_type(data: bytes, number: int) -> bytes:
    """The frame with another value type in its header, 0 .. 3."""
    (flags,) = struct.unpack_from("<H", data, 2)
    return patched(data, 2, "H", flags & ~0b110 | number << 1)


def with_promise(data: bytes, *, payload_bytes: int | None = None, payload_bits: int | None = None) -> bytes:
    """The frame whose header promises other lengths, below 2**48."""
    changed = bytearray(data)
    if payload_bytes is not None:
        changed[20:26] = payload_bytes.to_bytes(6, "little")
    if payload_bits is not None:
        changed[26:32] = payload_bits.to_bytes(6, "little")
    return resealed(changed)


def with_payload(data: bytes, payload: bytes) -> bytes:
    """The frame with another payload, whose length its header tells truly."""
    return with_promise(data[:HEADER_BYTES] + payload, payload_bytes=len(payload))


def promised_bits(data: bytes) -> int:
    """The payload bits that a header promises."""
    return int.from_bytes(data[26:32], "little")


def flipped(data: bytes, bit: int) -> bytes:
    """The frame with one bit flipped; its checksum does not change."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def assert_same_packet(one: Packet, other: Packet) -> None:
    """Equal in kind and in every field, to the bit."""
    assert type(one) is type(other)
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        left, right = getattr(one, field.name), getattr(other, field.name)
        if not field.compare:  # computed by a reader from the other fields
            continue
        if isinstance(left, Tensor):
            assert left.dtype == right.dtype, field.name
            assert torch.equal(torch.cat([left]).view(torch.uint8), torch.cat([right]).view(torch.uint8)), field.name
        elif isinstance(left, Packet):
            assert_same_packet(left, right)
        else:
            assert left == right, field.name
