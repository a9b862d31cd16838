"""Packets to bytes and back. A wrong buffer raises WireError before anything large is allocated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from laconic.buffer_pool import BUFFER_POOL
from laconic.errors import WireError
from laconic.kernels.api import note_place
from laconic.wire.control import CONTROLS, Control, pack_used, read_used
from laconic.wire.head import (
    HEADER_BYTES,
    Header,
    PayloadInfo,
    checksum,
    read_header,
    read_split_header,
    sealed,
    with_checksum,
    write_header,
    write_unsealed,
)
from laconic.wire.measured import Measured
from laconic.wire.packets import KINDS
from laconic.wire.packets.dense import Dense
from laconic.wire.packets.fractional import MAX_LEVELS
from laconic.wire.packets.late_codes import LateCodes
from laconic.wire.packets.levels import Levels
from laconic.wire.packets.packet import Packet, PayloadPart
from laconic.wire.packets.quantized import QuantizedValues


@dataclass(frozen=True, init=False)
class Frame:
    """One message: a packet, or a control frame.

    Raises:
        ValueError: It is given a packet and a control, or neither; or USED goes without its bits, or they without it.
    """

    header: Header
    """Who sent it, and when."""
    packet: Packet | None = None
    """What it carries; None for a control frame."""
    control: Control | None = None
    """What it says where it carries no packet."""
    used: tuple[bool, ...] = ()
    """Which parameter tensors the sender uses from its next packet on; only in a frame USED."""

    def __init__(
        self,
        *,
        header: Header,
        packet: Packet | None = None,
        control: Control | None = None,
        used: tuple[bool, ...] = (),
    ) -> None:
        if packet is None or control is not None or used:
            _check_control(packet, control, used)
        fields = self.__dict__  # several frames are made in each round, and `__setattr__` is no one's here
        fields["header"], fields["packet"], fields["control"], fields["used"] = header, packet, control, used

    @classmethod
    def carrying(cls, header: Header, packet: Packet | None, *, aborted: bool = False) -> "Frame":
        """Return the frame of a packet; SKIP where there is none, and ABORT where the round is aborted."""
        if aborted:
            return cls(header=header, control=Control.ABORT)
        return cls(header=header, packet=packet, control=Control.SKIP if packet is None else None)

    @property
    def kind(self) -> int:
        """Number of its kind on the wire."""
        if self.control is not None:
            return self.control.value
        assert self.packet is not None, "checked when the frame was made"
        return self.packet.kind

    @property
    def aborted(self) -> bool:
        """Whether it aborts the round."""
        return self.control is Control.ABORT

    @property
    def skipped(self) -> bool:
        """Whether its sender leaves out this exchange."""
        return self.control is Control.SKIP

    @property
    def payload_bits(self) -> int:
        """Information bits of the payload. A control frame counts as one bit, USED as one a parameter tensor."""
        return len(self.used) or 1 if self.packet is None else self.packet.payload_bits

    @property
    def n_bytes(self) -> int:
        """Length in bytes of what `encode` returns."""
        return HEADER_BYTES + ((len(self.used) + 7) // 8 if self.packet is None else self.packet.encoded_bytes)


def _check_control(packet: Packet | None, control: Control | None, used: tuple[bool, ...]) -> None:
    if (packet is None) == (control is None):
        given = "neither" if packet is None else "both"
        raise ValueError(f"a frame has a packet or a control, and was given {given}: give it one of the two")
    if bool(used) != (control is Control.USED):
        raise ValueError(f"control={control}, {len(used)} bits in used: USED has them, and nothing else")


@final
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

    @property
    def n_bytes(self) -> int:
        """The number of bytes in both."""
        return self.numel()


LONG_BYTES = 1 << 20
"""A payload of so many bytes is long: its first bytes travel with the header."""
LEAD_BYTES = HEADER_BYTES + 8
"""Of a long frame, the header and what travels with it: as many bytes as fields before the values of a dense packet."""


CHUNKED_KINDS = (Dense.kind, Levels.kind, QuantizedValues.kind)
"""The kinds whose long frames are sent from where their values or codes are, with the checksum last."""
_MAX_FIELDS_BYTES = 1 << 16  # of a frame that is sent so


@dataclass(frozen=True)
class BorrowedFrame:
    """A frame's bytes in parts, so that its values are not copied: they must not change until it is sent."""

    start: bytes
    """(LEAD_BYTES,): the header, with zero in place of the checksum, and the fields, or as many bytes as fit in."""
    values: Tensor
    """(n,) uint8, in the memory of the packet."""
    fields: bytes = b""
    """The other bytes before the values."""
    late: LateCodes | None = None
    """What makes the values, of which none are there yet; None where all are."""
    checksum: int | None = None
    """The checksum of the values' bytes alone, if it is known."""

    def numel(self) -> int:
        """Return the number of bytes in all."""
        return LEAD_BYTES + len(self.fields) + self.values.numel()

    def clone(self) -> Tensor:
        """Return the bytes in memory of their own, (n,) uint8."""
        if self.late is not None:
            self.late.all()
        data = BUFFER_POOL.borrow(self.numel())
        at = LEAD_BYTES + len(self.fields)
        if self.fields:
            data[LEAD_BYTES:at] = _byte_view(self.fields)
        data[at:] = self.values
        found = checksum(self.start, memoryview(data[LEAD_BYTES:].numpy()))  # type: ignore[arg-type]
        data[:LEAD_BYTES] = _byte_view(with_checksum(self.start, found))
        return data


@final
@dataclass(frozen=True)
class LandedFrame:
    """A frame's bytes with what was found out about them while they came."""

    data: Tensor
    """(n,) uint8 on the CPU."""
    checksum: int
    """The checksum that they have."""
    values: Measured | None = None
    """What is known of a dense packet's values; None where that is nothing."""

    def numel(self) -> int:
        """Return the number of bytes."""
        return self.data.numel()


Encoded = Tensor | SplitFrame | BorrowedFrame | LandedFrame


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


_SHORT_BYTES = 1 << 13


def max_encoded_bytes(max_count: int) -> int:
    """Return an upper bound on the bytes of a payload about `max_count` coordinates."""
    # for each coordinate a position in 32 bits, a length and two float64 ends of its block, and a code of 9 bits and a
    # little; the longest table of level means, and the fields
    return 26 * max_count + 8 * MAX_LEVELS + 4096


def encode(frame: Frame) -> Tensor:
    """Return the frame's bytes, (n,) uint8 on the CPU.

    Bytes are counted nowhere else: their number is `numel` of this tensor, or of a split frame. The memory comes from
    the buffer pool and is used again when no tensor refers to it any more.
    """
    return _encoded(frame, [pack_used(frame.used)] if frame.packet is None else frame.packet.payload())


def _encoded(frame: Frame, payload: Sequence[PayloadPart]) -> Tensor:
    encoded_bytes, in_bytes = 0, b""
    for part in payload:
        encoded_bytes += len(part) if type(part) is bytes else part.nbytes  # type: ignore[union-attr]
    if encoded_bytes > _SHORT_BYTES:
        return _filled(frame, payload, encoded_bytes)
    for part in payload:  # copying so few bytes costs less than calls that write into memory that is there
        if type(part) is bytes:
            in_bytes += part
        elif part.nbytes:  # type: ignore[union-attr]
            is_plain = part.is_cpu and part.dtype is not torch.bfloat16  # type: ignore[union-attr] # numpy has it not
            in_bytes += (part if is_plain else _byte_view(part)).numpy().tobytes()  # type: ignore[union-attr]
    if (packet := frame.packet) is None:
        data = sealed(frame.header, frame.kind, torch.float32, encoded_bytes, frame.payload_bits, in_bytes)
    else:
        data = sealed(frame.header, packet.kind, packet.value_type, encoded_bytes, packet.payload_bits, in_bytes)
    return torch.frombuffer(data, dtype=torch.uint8)


def _filled(frame: Frame, payload: Sequence[PayloadPart], encoded_bytes: int) -> Tensor:
    """Return a frame's bytes in memory of the pool."""
    data = BUFFER_POOL.borrow(HEADER_BYTES + encoded_bytes)
    view = memoryview(data.numpy())  # type: ignore[arg-type]
    at = HEADER_BYTES
    for part in payload:
        if isinstance(part, bytes):
            view[at : at + len(part)] = part
            at += len(part)
        elif part.nbytes:
            data[at : at + part.nbytes] = part if part.dtype is torch.uint8 else _byte_view(part)
            at += part.nbytes
    info = _payload_info(frame, encoded_bytes)
    view[:HEADER_BYTES] = write_header(frame.header, info, view[HEADER_BYTES:])
    return data


def encode_in_place(frame: Frame) -> Tensor | BorrowedFrame:
    """Return the frame's bytes with long values or codes left where they are, or the result of `encode`."""
    if frame.packet is None:
        return encode(frame)
    packet, late = frame.packet, None
    if type(packet) is QuantizedValues and (late := packet.late_codes) is not None:
        parts = packet.late_payload()
    else:
        parts = packet.payload()
    *before, values = parts
    may_stay = type(values) is not bytes and values.is_cpu and values.nbytes >= LONG_BYTES  # type: ignore[union-attr]
    n_fields = sum(len(part) if isinstance(part, bytes) else part.nbytes for part in before) if may_stay else 0
    if not may_stay or packet.kind not in CHUNKED_KINDS or n_fields > _MAX_FIELDS_BYTES:
        return _encoded(frame, parts if late is None else packet.payload())
    assert isinstance(values, Tensor), "a part is bytes or a tensor"
    fields = b"".join(part if isinstance(part, bytes) else bytes(_byte_view(part).numpy()) for part in before)
    in_bytes, end = _byte_view(values), LEAD_BYTES - HEADER_BYTES
    info = _payload_info(frame, len(fields) + in_bytes.numel())
    known = frame.packet.known_checksum() if type(frame.packet) is Dense else None
    start = write_unsealed(frame.header, info) + fields[:end]
    return BorrowedFrame(start, in_bytes, fields[end:], late, known)


def _payload_info(frame: Frame, encoded_bytes: int) -> PayloadInfo:
    packet = frame.packet
    if packet is None:
        return PayloadInfo(
            kind=frame.kind, dtype=torch.float32, encoded_bytes=encoded_bytes, payload_bits=frame.payload_bits
        )
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
    info = replace(_payload_info(frame, payload.numel()), is_split=True)
    return SplitFrame(header=_byte_view(write_header(frame.header, info)), payload=payload)


def decode(data: Encoded | bytes, max_count: int) -> Frame:
    """Read one frame.

    A decoded packet's dense values and packed codes are views of `data`, or of a split frame's payload on the CPU.

    Args:
        data: (n,) uint8 on the CPU, a split, borrowed or landed frame, or bytes.
        max_count: Length of the receiver's vector; a packet about later coordinates is refused.

    Raises:
        WireError: The bytes are not a valid frame.
    """
    found: int | None = None
    values: Measured | None = None
    if type(data) is SplitFrame:
        header, info = read_split_header(bytes(data.header.numpy()))
        payload = data.payload.cpu()
        if payload.numel() != info.encoded_bytes:
            raise WireError(f"the header promises {info.encoded_bytes} payload bytes, {payload.numel()} are there")
    else:
        if type(data) is LandedFrame:
            found, values = data.checksum, data.values
            data = data.data
        elif type(data) is BorrowedFrame:
            data = data.clone()
        elif type(data) is bytes:
            data = _byte_view(data) if data else torch.empty(0, dtype=torch.uint8)
        buffer = data
        array, place = buffer.numpy(), buffer.data_ptr()  # type: ignore[union-attr]
        if not array.flags.c_contiguous or place % 8:
            buffer = data.clone(memory_format=torch.contiguous_format)  # type: ignore[union-attr,call-arg]
            array, place = buffer.numpy(), buffer.data_ptr()  # so that values can be viewed in place
        header, info = read_header(memoryview(array), found)  # type: ignore[arg-type]
        payload = note_place(buffer[HEADER_BYTES:], place + HEADER_BYTES)  # type: ignore[arg-type,index]
    if info.kind in CONTROLS:
        return _read_control(header, info, payload)
    if info.kind not in KINDS:
        raise WireError(f"unknown packet kind {info.kind}; known: {', '.join(map(str, sorted(KINDS)))}")
    if values is not None and info.kind == Dense.kind:
        packet: Packet = Dense.read(payload, info.dtype, max_count, values)
    else:
        packet = KINDS[info.kind].read(payload, info.dtype, max_count)
    if packet.payload_bits != info.payload_bits:
        raise WireError(f"{info.payload_bits} payload bits promised, {packet.payload_bits} are there")
    return Frame(header=header, packet=packet)


def _read_control(header: Header, info: PayloadInfo, payload: Tensor) -> Frame:
    control = CONTROLS[info.kind]
    if info.dtype != torch.float32:
        raise WireError(f"{control.name}: a control frame has value type 0")
    if control is Control.USED:
        return Frame(header=header, control=control, used=read_used(payload, info.payload_bits))
    if info.encoded_bytes or info.payload_bits != 1:
        raise WireError(f"{control.name}: a control frame without fields has no payload and one payload bit")
    return Frame(header=header, control=control)
