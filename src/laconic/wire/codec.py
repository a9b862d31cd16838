"""Packet <-> bytes. A reader trusts nobody: every wrong buffer is a WireError before anything large is allocated."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from laconic.buffer_pool import BUFFER_POOL
from laconic.errors import WireError
from laconic.wire.head import (
    ABORT_KIND,
    HEADER_BYTES,
    SKIP_KIND,
    Header,
    PayloadInfo,
    read_header,
    read_split_header,
    write_header,
)
from laconic.wire.packets.dense import Dense
from laconic.wire.packets.fractional import MAX_LEVELS, FractionalValues
from laconic.wire.packets.levels import Levels
from laconic.wire.packets.packet import Packet, PayloadPart
from laconic.wire.packets.positions import Positions
from laconic.wire.packets.quantized import QuantizedValues
from laconic.wire.packets.scaled_signs import ScaledSigns
from laconic.wire.packets.selected_values import SelectedValues
from laconic.wire.packets.short_floats import ShortFloats
from laconic.wire.packets.signs import Signs
from laconic.wire.packets.sparse import Sparse
from laconic.wire.packets.vote_change import VoteChange

KINDS: dict[int, type[Packet]] = {
    kind.kind: kind
    for kind in (
        Dense, Signs, ScaledSigns, Positions, Sparse, VoteChange, FractionalValues,
        QuantizedValues, Levels, ShortFloats, SelectedValues,
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One message. `packet` is None for a skip control frame; `aborted` aborts the whole round."""

    header: Header
    packet: Packet | None
    aborted: bool = False

    @property
    def payload_bits(self) -> int:
        """Information bits: a control frame carries one, that it is a control frame."""
        return 1 if self.packet is None else self.packet.payload_bits

    @property
    def n_bytes(self) -> int:
        """How many bytes `encode` makes of it."""
        return HEADER_BYTES + (0 if self.packet is None else self.packet.size.encoded_bytes)


@dataclass(frozen=True)
class SplitFrame:
    """A frame's bytes in two: header (32,) uint8 on the CPU, payload (n,) uint8 on a device. FORMAT.md, section 1.3."""

    header: Tensor
    payload: Tensor

    def numel(self) -> int:
        """How many bytes."""
        return self.header.numel() + self.payload.numel()


Encoded = Tensor | SplitFrame


def _byte_view(part: PayloadPart, *, stays: bool = False) -> Tensor:
    """stays: a tensor is viewed where it is, not brought to the CPU."""
    if isinstance(part, bytes):
        return torch.frombuffer(bytearray(part), dtype=torch.uint8)
    if not stays:
        part = part.cpu()
    if part.stride(0) != 1:  # a lone element of a spread-out vector counts as contiguous
        part = part.clone(memory_format=torch.contiguous_format)
    return part.view(torch.uint8)


def max_encoded_bytes(max_count: int) -> int:
    """No payload about `max_count` coordinates is longer: codes of 9 bits and two float64 ends for each of them, and
    the longest table of level means, with room for fields."""
    return 18 * max_count + 8 * MAX_LEVELS + 64


def encode(frame: Frame) -> Tensor:
    """The frame's bytes: (n,) uint8 on the CPU. `numel` of it, or of a split frame, is the only byte count there is.

    Their memory is used again when no tensor lies in it any more.
    """
    packet = frame.packet
    parts = [] if packet is None else [_byte_view(part) for part in packet.payload() if len(part)]
    encoded_bytes = sum(part.numel() for part in parts)
    data = BUFFER_POOL.borrow(HEADER_BYTES + encoded_bytes)
    at = HEADER_BYTES
    for part in parts:
        data[at : at + part.numel()] = part
        at += part.numel()
    if packet is None:
        kind = ABORT_KIND if frame.aborted else SKIP_KIND
        info = PayloadInfo(kind=kind, dtype=torch.float32, encoded_bytes=0, payload_bits=1)
    else:
        info = _payload_info(packet, encoded_bytes)
    view = memoryview(data.numpy())  # type: ignore[arg-type]
    view[:HEADER_BYTES] = write_header(frame.header, info, view[HEADER_BYTES:])
    return data


def _payload_info(packet: Packet, encoded_bytes: int) -> PayloadInfo:
    return PayloadInfo(
        kind=packet.kind, dtype=packet.value_type, encoded_bytes=encoded_bytes, payload_bits=packet.payload_bits
    )


def encode_split(frame: Frame, device: torch.device) -> Encoded:
    """The same bytes, but a payload of which anything is on `device` is put together and stays there."""
    packet = frame.packet
    parts = [] if packet is None else [_byte_view(part, stays=True) for part in packet.payload() if len(part)]
    if packet is None or not any(part.device == device for part in parts):
        return encode(frame)
    payload = torch.cat([part.to(device) for part in parts])
    info = replace(_payload_info(packet, payload.numel()), is_split=True)
    return SplitFrame(header=_byte_view(write_header(frame.header, info, b"")), payload=payload)


def decode(data: Encoded | bytes, max_count: int) -> Frame:
    """Read one frame. `max_count` is the receiver's vector length; nothing longer is believed.

    A decoded packet's dense values and packed codes are views of `data`, or of a split frame's payload on the CPU.
    Raises WireError.
    """
    if isinstance(data, SplitFrame):
        header, info = read_split_header(bytes(data.header.numpy()))
        payload = data.payload.cpu()
        if payload.numel() != info.encoded_bytes:
            raise WireError(f"the header promises {info.encoded_bytes} payload bytes, {payload.numel()} are there")
    else:
        if isinstance(data, bytes):
            data = _byte_view(data) if data else torch.empty(0, dtype=torch.uint8)
        buffer = data.contiguous()
        if buffer.storage_offset() % 8 or buffer.data_ptr() % 8:
            buffer = buffer.clone()  # so that values can be viewed in place
        header, info = read_header(memoryview(buffer.numpy()))  # type: ignore[arg-type]
        payload = buffer[HEADER_BYTES:]
    if info.kind in (SKIP_KIND, ABORT_KIND):
        if info.encoded_bytes or info.payload_bits != 1 or info.dtype != torch.float32:
            raise WireError("a control frame has no payload, one payload bit and value type 0")
        return Frame(header=header, packet=None, aborted=info.kind == ABORT_KIND)
    if info.kind not in KINDS:
        raise WireError(f"unknown packet kind {info.kind}; known: {', '.join(map(str, sorted(KINDS)))}")
    packet = KINDS[info.kind].read(payload, info.dtype, max_count)
    if packet.payload_bits != info.payload_bits:
        raise WireError(f"{info.payload_bits} payload bits promised, {packet.payload_bits} are there")
    return Frame(header=header, packet=packet)
