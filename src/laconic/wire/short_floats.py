"""Every value as sign, exponent and the first bits of its mantissa. FORMAT.md, section 3.10."""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.kernels import all_finite, pack_codes, unpack_codes
from laconic.wire.head import WireError
from laconic.wire.packet import Packet, Piece, check_length, check_padding, check_range

_FIELDS = struct.Struct("<III")
MOST_MANTISSA_BITS = 22
_LAYOUTS = {torch.float32: (torch.int32, 8, 23), torch.float64: (torch.int64, 11, 52)}  # integer, exponent, mantissa


def short_bits(mantissa_bits: int, dtype: torch.dtype = torch.float32) -> int:
    """The bits of one value: its sign, its exponent and `mantissa_bits`."""
    return 1 + _LAYOUTS[dtype][1] + mantissa_bits


@dataclass(frozen=True, kw_only=True)
class ShortFloats(Packet):
    """values: (count,) float32 or float64, whose mantissas are zero behind the first `mantissa_bits`, 0 .. 22."""

    kind: ClassVar[int] = 12
    name: ClassVar[str] = "short floats"
    values: Tensor
    mantissa_bits: int
    first: int = 0

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.values.numel()

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.values.dtype

    @property
    def payload_bits(self) -> int:
        return short_bits(self.mantissa_bits, self.dtype) * self.count

    @property
    def paper_bits(self) -> float:
        return float(short_bits(self.mantissa_bits) * self.count)

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"value type": self.payload_bits - self.paper_bits} if self.dtype != torch.float32 else {}

    @property
    def finite(self) -> bool:
        return all_finite(self.values)

    def dense(self) -> Tensor:
        return self.values

    def part(self, first: int, stop: int) -> Self:
        values = self.values[first - self.first : stop - self.first]
        return type(self)(values=values, mantissa_bits=self.mantissa_bits, first=first)

    def body(self) -> list[Piece]:
        integer, exponent_bits, width = _LAYOUTS[self.dtype]
        patterns = self.values.contiguous().view(integer)
        fields = _FIELDS.pack(self.first, self.count, self.mantissa_bits)
        heads = ((patterns >> width) & ((1 << (1 + exponent_bits)) - 1)).int()
        pieces: list[Piece] = [fields, pack_codes(heads, 1 + exponent_bits)]
        if self.mantissa_bits:
            tails = (patterns >> (width - self.mantissa_bits)) & ((1 << self.mantissa_bits) - 1)
            pieces.append(pack_codes(tails.int(), self.mantissa_bits))
        return pieces

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        if body.numel() < _FIELDS.size:
            raise WireError(f"short floats: a body of {body.numel()} bytes has no room for its fields")
        first, count, mantissa_bits = _FIELDS.unpack(bytes(body[: _FIELDS.size].numpy()))
        check_range(first, count, most)
        if dtype not in _LAYOUTS or mantissa_bits > MOST_MANTISSA_BITS:
            raise WireError(f"short floats: {mantissa_bits} bits of mantissa of {dtype}: not of this version")
        integer, exponent_bits, width = _LAYOUTS[dtype]
        head_bytes = ((1 + exponent_bits) * count + 7) // 8
        check_length(body, _FIELDS.size + head_bytes + (mantissa_bits * count + 7) // 8, "short floats")
        heads_at, tails_at = body[_FIELDS.size :][:head_bytes], body[_FIELDS.size + head_bytes :]
        check_padding(int(heads_at[-1]), (1 + exponent_bits) * count)
        patterns = unpack_codes(heads_at, count, 1 + exponent_bits).to(integer) << width
        if mantissa_bits:
            check_padding(int(tails_at[-1]), mantissa_bits * count)
            patterns |= unpack_codes(tails_at, count, mantissa_bits).to(integer) << (width - mantissa_bits)
        packet = cls(values=patterns.view(dtype), mantissa_bits=mantissa_bits, first=first)
        if not packet.finite:
            raise WireError("short floats: inf or NaN among the values")
        return packet
