"""A set of coordinates without values, such as a vote or a mask. FORMAT.md, section 3.4."""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.wire.coding.positions import (
    POSITION_CODES,
    decode_positions,
    encode_positions,
    entropy_bound_bits,
    paper_position_bits,
    position_bits,
)
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_range

_FIELDS = struct.Struct("<IIIBBHQ")
FIELDS_BYTES = _FIELDS.size


@dataclass(frozen=True, kw_only=True)
class Positions(Packet):
    """A set of coordinates. The dense form is one at them, and zero elsewhere."""

    kind: ClassVar[int] = 6
    name: ClassVar[str] = "positions"
    has_values: ClassVar[bool] = False
    absolute_maximum: ClassVar[float] = 1.0
    indices: Tensor
    """(k,) int64, counted from `offset`, in 0 .. count-1, ascending, each once."""
    count: int
    """Number of coordinates."""
    offset: int = 0
    """Number of the first coordinate."""
    code: str = "block"
    """How the positions are coded: one of POSITION_CODES."""

    @cached_property
    def stream(self) -> tuple[Tensor, int]:
        """The coded positions: (n,) uint8, and the length in bits."""
        return encode_positions(self.indices, self.count, self.code)

    @property
    def n_selected(self) -> int:
        """Number of positions."""
        return self.indices.numel()

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return torch.float32

    @cached_property
    def payload_bits(self) -> int:
        return stream_bits(self)

    @property
    def encoded_bytes(self) -> int:
        return FIELDS_BYTES + (self.payload_bits + 7) // 8

    @property
    def paper_bits(self) -> float:
        return paper_position_bits(self.count, self.indices.numel())

    @property
    def named_overheads(self) -> dict[str, float]:
        return code_overhead(self.payload_bits, self.paper_bits)

    @property
    def minimum_bits(self) -> float:
        return entropy_bound_bits(self.count, self.indices.numel())

    def dense(self) -> Tensor:
        return indicator(self.indices, self.count)

    def add_to(self, total: Tensor) -> None:
        add_ones(total, self.indices)

    def scaled(self, factor: float) -> Self:
        return self

    def part(self, start: int, stop: int) -> Self:
        low, high = index_range(self.indices, self.offset, start, stop)
        indices = self.indices[low:high] - (start - self.offset)
        return type(self)(indices=indices, count=stop - start, offset=start, code=self.code)

    def as_read(self) -> Self | None:
        return self if self.indices.device.type == "cpu" else None

    def payload(self) -> list[PayloadPart]:
        data, n_bits = self.stream
        return [write_fields(self.offset, self.count, self.indices.numel(), self.code, 0, n_bits), data]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        offset, count, k, code, nested, n_bits = read_fields(payload, cls.name, max_count)
        if nested or dtype != torch.float32:
            raise WireError(f"positions have no values, of kind {nested} or of type {dtype}")
        check_length(payload, FIELDS_BYTES + (n_bits + 7) // 8, cls.name)
        data = payload[FIELDS_BYTES:]
        packet = cls(indices=decode_positions(data, n_bits, k, count, code), count=count, offset=offset, code=code)
        packet.__dict__["stream"] = (data, n_bits)  # the cached property: it is known here
        return packet


class _Coded(Protocol):
    """A packet with positions."""

    @property
    def indices(self) -> Tensor: ...
    @property
    def count(self) -> int: ...
    @property
    def code(self) -> str: ...
    @property
    def stream(self) -> tuple[Tensor, int]: ...


def stream_bits(packet: _Coded) -> int:
    """Return the length in bits of a packet's coded positions. They are encoded only where the length depends on it."""
    if "stream" in packet.__dict__:
        return packet.stream[1]
    return position_bits(packet.indices, packet.count, packet.code)


def write_fields(offset: int, count: int, k: int, code: str, nested: int, n_bits: int) -> bytes:
    """Return the fields that begin all packets with positions.

    Args:
        offset: Number of the first coordinate.
        count: Number of coordinates.
        k: Number of positions.
        code: One of POSITION_CODES.
        nested: Kind of the values; 0 where there are none.
        n_bits: Length of the coded positions in bits.
    """
    return _FIELDS.pack(offset, count, k, POSITION_CODES.index(code), nested, 0, n_bits)


def read_fields(payload: Tensor, what: str, max_count: int) -> tuple[int, int, int, str, int, int]:
    """Read the fields that begin all packets with positions.

    Args:
        payload: (n,) uint8 on the CPU.
        what: Name of the packet kind, for the messages.
        max_count: Length of the receiver's vector.

    Returns:
        offset, count, k, code, nested and n_bits, as `write_fields` takes them.

    Raises:
        WireError: Coordinates are outside the vector, k is above count, or the code is unknown.
    """
    if payload.numel() < FIELDS_BYTES:
        raise WireError(f"{what}: a payload of {payload.numel()} bytes has no room for its fields")
    offset, count, k, code, nested, zero, n_bits = _FIELDS.unpack(bytes(payload[:FIELDS_BYTES].numpy()))
    check_range(offset, count, max_count)
    if k > count:
        raise WireError(f"{what}: {k} positions among {count} coordinates")
    if code >= len(POSITION_CODES) or zero:
        raise WireError(f"{what}: position code {code}, reserved bytes {zero}: not of this version")
    return offset, count, k, POSITION_CODES[code], nested, n_bits


def code_overhead(n_bits: int, paper_bits: float) -> dict[str, float]:
    """Return, by name, the bits of positions beyond those of the paper's formula."""
    return {"position code": n_bits - paper_bits} if n_bits != paper_bits else {}


def indicator(indices: Tensor, count: int) -> Tensor:
    """Return (count,) float32 with one at the indices (k,) int64 and zero elsewhere."""
    ones = torch.zeros(count, dtype=torch.float32, device=indices.device)
    ones[indices] = 1
    return ones


def add_ones(total: Tensor, indices: Tensor) -> None:
    """Add 1 to `total` (count,), of any type, at the indices (k,) int64, in place."""
    indices = indices.to(total.device)
    total.index_add_(0, indices, torch.ones(indices.numel(), dtype=total.dtype, device=total.device))


def index_range(indices: Tensor, origin: int, start: int, stop: int) -> tuple[int, int]:
    """Return the range of `indices` that lie within a range of coordinates.

    Args:
        indices: (k,) int64, ascending, counted from `origin`.
        origin: Coordinate of index 0.
        start: First coordinate of the range.
        stop: Coordinate after its last one.

    Returns:
        (low, high): `indices[low:high]` are the coordinates start .. stop-1.
    """
    edges = torch.tensor([start - origin, stop - origin], device=indices.device)
    low, high = torch.searchsorted(indices, edges).tolist()
    return low, high
