"""Packet <-> bytes. A reader trusts nobody: every wrong buffer is a WireError before anything large is allocated."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laconic.buffer_pool import ROOMS
from laconic.errors import WireError
from laconic.wire.head import HEAD_BYTES, SKIP_KIND, VOID_KIND, Head, Opening, read_head, read_split_head, write_head
from laconic.wire.packets.dense import Dense
from laconic.wire.packets.fractional import MOST_LEVELS, Fractional
from laconic.wire.packets.levels import Levels
from laconic.wire.packets.packet import Packet, Piece
from laconic.wire.packets.positions import Positions
from laconic.wire.packets.quantized import Quantized
from laconic.wire.packets.scaled_signs import ScaledSigns
from laconic.wire.packets.selected_values import KeptValues
from laconic.wire.packets.short_floats import ShortFloats
from laconic.wire.packets.signs import Signs
from laconic.wire.packets.sparse import Sparse
from laconic.wire.packets.vote_change import VoteChange

KINDS: dict[int, type[Packet]] = {
    kind.kind: kind
    for kind in (
        Dense, Signs, ScaledSigns, Positions, Sparse, VoteChange, Fractional,
        Quantized, Levels, ShortFloats, KeptValues,
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message. `packet` is None for a skip notice; `void` calls the whole round off."""

    head: Head
    packet: Packet | None
    void: bool = False

    @property
    def payload_bits(self) -> int:
        """Information bits: a notice carries one, that it is a notice."""
        return 1 if self.packet is None else self.packet.payload_bits

    @property
    def n_bytes(self) -> int:
        """How many bytes `encode` makes of it."""
        return HEAD_BYTES + (0 if self.packet is None else self.packet.size.body_bytes)


@dataclass(frozen=True)
class SplitFrame:
    """A frame's bytes in two: head (32,) uint8 on the CPU, body (n,) uint8 on a device. FORMAT.md, section 1.3."""

    head: Tensor
    body: Tensor

    def numel(self) -> int:
        """How many bytes."""
        return self.head.numel() + self.body.numel()


Encoded = Tensor | SplitFrame


def _byte_view(piece: Piece, *, stays: bool = False) -> Tensor:
    """stays: a tensor is viewed where it is, not brought to the CPU."""
    if isinstance(piece, bytes):
        return torch.frombuffer(bytearray(piece), dtype=torch.uint8)
    if not stays:
        piece = piece.cpu()
    if piece.stride(0) != 1:  # a lone entry of a spread-out vector counts as contiguous
        piece = piece.clone(memory_format=torch.contiguous_format)
    return piece.view(torch.uint8)


def most_body_bytes(most: int) -> int:
    """No body about `most` coordinates is longer: codes of 9 bits and two float64 ends for each of them, and the
    longest table of level means, with room for fields."""
    return 18 * most + 8 * MOST_LEVELS + 64


def encode(frame: Frame) -> Tensor:
    """The frame's bytes: (n,) uint8 on the CPU. `numel` of it, or of a split frame, is the only byte count there is.

    Their memory is used again when no tensor lies in it any more.
    """
    packet = frame.packet
    pieces = [] if packet is None else [_byte_view(piece) for piece in packet.body() if len(piece)]
    body_bytes = sum(piece.numel() for piece in pieces)
    data = ROOMS.lend(HEAD_BYTES + body_bytes)
    at = HEAD_BYTES
    for piece in pieces:
        data[at : at + piece.numel()] = piece
        at += piece.numel()
    if packet is None:
        kind = VOID_KIND if frame.void else SKIP_KIND
        opening = Opening(kind=kind, dtype=torch.float32, body_bytes=0, payload_bits=1)
    else:
        opening = _opening(packet, body_bytes)
    view = memoryview(data.numpy())  # type: ignore[arg-type]
    view[:HEAD_BYTES] = write_head(frame.head, opening, view[HEAD_BYTES:])
    return data


def _opening(packet: Packet, body_bytes: int) -> Opening:
    return Opening(kind=packet.kind, dtype=packet.value_type, body_bytes=body_bytes, payload_bits=packet.payload_bits)


def encode_split(frame: Frame, device: torch.device) -> Encoded:
    """The same bytes, but a body of which anything is on `device` is put together and stays there."""
    packet = frame.packet
    pieces = [] if packet is None else [_byte_view(piece, stays=True) for piece in packet.body() if len(piece)]
    if packet is None or not any(piece.device == device for piece in pieces):
        return encode(frame)
    body = torch.cat([piece.to(device) for piece in pieces])
    opening = replace(_opening(packet, body.numel()), is_split=True)
    return SplitFrame(head=_byte_view(write_head(frame.head, opening, b"")), body=body)


def decode(data: Encoded | bytes, most: int) -> Frame:
    """Read one frame. `most` is the receiver's vector length; nothing longer is believed.

    A decoded packet's dense values and packed codes are views of `data`, or of a split frame's body on the CPU.
    Raises WireError.
    """
    if isinstance(data, SplitFrame):
        head, opening = read_split_head(bytes(data.head.numpy()))
        body = data.body.cpu()
        if body.numel() != opening.body_bytes:
            raise WireError(f"the head promises {opening.body_bytes} body bytes, {body.numel()} are there")
    else:
        if isinstance(data, bytes):
            data = _byte_view(data) if data else torch.empty(0, dtype=torch.uint8)
        buffer = data.contiguous()
        if buffer.storage_offset() % 8 or buffer.data_ptr() % 8:
            buffer = buffer.clone()  # so that values can be viewed in place
        head, opening = read_head(memoryview(buffer.numpy()))  # type: ignore[arg-type]
        body = buffer[HEAD_BYTES:]
    if opening.kind in (SKIP_KIND, VOID_KIND):
        if opening.body_bytes or opening.payload_bits != 1 or opening.dtype != torch.float32:
            raise WireError("a notice has no body, one payload bit and value type 0")
        return Frame(head=head, packet=None, void=opening.kind == VOID_KIND)
    if opening.kind not in KINDS:
        raise WireError(f"unknown packet kind {opening.kind}; known: {', '.join(map(str, sorted(KINDS)))}")
    packet = KINDS[opening.kind].read(body, opening.dtype, most)
    if packet.payload_bits != opening.payload_bits:
        raise WireError(f"{opening.payload_bits} payload bits promised, {packet.payload_bits} are there")
    return Frame(head=head, packet=packet)
