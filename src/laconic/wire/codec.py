"""Packets to bytes and back. A wrong buffer raises WireError before anything large is allocated."""

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
    """One message."""

    header: Header
    """Who sent it, and when."""
    packet: Packet | None
    """What it carries; None for a control frame."""
    aborted: bool = False
    """Whether a control frame is ABORT, which aborts the round, and not SKIP."""

    @property
    def payload_bits(self) -> int:
        """Information bits of the payload. A control frame counts as one bit."""
        return 1 if self.packet is None else self.packet.payload_bits

    @property
    def n_bytes(self) -> int:
        """Length in bytes of what `encode` returns."""
        return HEADER_BYTES + (0 if self.packet is None else self.packet.size.encoded_bytes)


@dataclass(frozen=True)
class SplitFrame:
    """A frame's bytes in two tensors, so that the payload can stay on a device. FORMAT.md, section 1.3."""

    header: Tensor
    """(32,) uint8 on the CPU."""
    payload: Tensor
    """(n,) uint8 on a device."""

    def numel(self) -> int:
        """Return the number of bytes in both."""
        return self.header.numel() + self.payload.numel()


Encoded = Tensor | SplitFrame


def _byte_view(part: PayloadPart, *, stays: bool = False) -> Tensor:
    """Return the bytes of a part of a payload.

    Args:
        part: Bytes, or a tensor of any type.
        stays: View a tensor on its own device instead of copying it to the CPU.

    Returns:
        (n,) uint8.
    """
    if isinstance(part, bytes):
        return torch.frombuffer(bytearray(part), dtype=torch.uint8)
    if not stays:
        part = part.cpu()
    if part.stride(0) != 1:  # a lone element of a spread-out vector counts as contiguous
        part = part.clone(memory_format=torch.contiguous_format)
    return part.view(torch.uint8)


def max_encoded_bytes(max_count: int) -> int:
    """Return an upper bound on the bytes of a payload about `max_count` coordinates."""
    # a code of 9 bits and two float64 ends for each coordinate, the longest table of level means, and the fields
    return 18 * max_count + 8 * MAX_LEVELS + 64


def encode(frame: Frame) -> Tensor:
    """Return the frame's bytes, (n,) uint8 on the CPU.

    Bytes are counted nowhere else: their number is `numel` of this tensor, or of a split frame. The memory comes from
    the buffer pool and is used again when no tensor refers to it any more.
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
    """Return the frame's bytes, with the payload left on `device` where any part of it is there.

    Args:
        frame: The frame.
        device: The device to assemble the payload on.

    Returns:
        A split frame, or the result of `encode` where no part of the payload is on `device`.
    """
    packet = frame.packet
    parts = [] if packet is None else [_byte_view(part, stays=True) for part in packet.payload() if len(part)]
    if packet is None or not any(part.device == device for part in parts):
        return encode(frame)
    payload = torch.cat([part.to(device) for part in parts])
    info = replace(_payload_info(packet, payload.numel()), is_split=True)
    return SplitFrame(header=_byte_view(write_header(frame.header, info, b"")), payload=payload)


def decode(data: Encoded | bytes, max_count: int) -> Frame:
    """Read one frame.

    A decoded packet's dense values and packed codes are views of `data`, or of a split frame's payload on the CPU.

    Args:
        data: (n,) uint8 on the CPU, a split frame, or bytes.
        max_count: Length of the receiver's vector; a packet about later coordinates is refused.

    Raises:
        WireError: The bytes are not a valid frame.
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
