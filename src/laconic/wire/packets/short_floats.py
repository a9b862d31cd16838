"""Every value as sign, exponent and the first bits of its mantissa. FORMAT.md, section 3.10."""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import (
    EXPONENT_BITS,
    add_powers,
    powers_finite,
    put_powers,
    short_codes,
    slice_bits,
)
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_padding, check_range, scaled_values

_FIELDS = struct.Struct("<III")
MAX_MANTISSA_BITS = 22


def short_bits(mantissa_bits: int, dtype: torch.dtype = torch.float32) -> int:
    """Return the bits of one value: its sign, its exponent and `mantissa_bits`."""
    return EXPONENT_BITS[dtype] + mantissa_bits


@dataclass(frozen=True, kw_only=True)
class ShortFloats(Packet):
    """Every value as its sign, its exponent and the first bits of its mantissa."""

    kind: ClassVar[int] = 12
    name: ClassVar[str] = "short floats"
    is_nestable: ClassVar[bool] = True
    exponents: Tensor
    """(ceil(9 count / 8),) uint8 (float64: 12 in place of 9), packed codes of sign and exponent."""
    tails: Tensor
    """(ceil(mantissa_bits count / 8),) uint8, the packed first bits of the mantissas."""
    mantissa_bits: int
    """Bits of a mantissa that are sent, 0 .. 22."""
    count: int
    """Number of coordinates."""
    dtype: torch.dtype
    """Type of the values, float32 or float64."""
    offset: int = 0
    """Number of the first coordinate."""

    @classmethod
    def of(cls, values: Tensor, mantissa_bits: int, offset: int = 0) -> Self:
        """Return the packet of values rounded toward zero: what is behind the first bits of a mantissa is cleared.

        Args:
            values: (count,) float32 or float64.
            mantissa_bits: 0 .. 22.
            offset: Number of the first coordinate.
        """
        exponents, tails, finite = short_codes(values, mantissa_bits)
        packet = cls(
            exponents=exponents, tails=tails, mantissa_bits=mantissa_bits, count=values.numel(), dtype=values.dtype,
            offset=offset,
        )  # fmt: skip
        packet.__dict__["finite"] = finite  # the cached property: it is known here
        return packet

    @property
    def values(self) -> Tensor:
        """The values, (count,) of type `dtype`, in a new tensor."""
        return self.dense()

    @property
    def payload_bits(self) -> int:
        return short_bits(self.mantissa_bits, self.dtype) * self.count

    @property
    def paper_bits(self) -> float:
        return float(short_bits(self.mantissa_bits) * self.count)

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"value type": self.payload_bits - self.paper_bits} if self.dtype != torch.float32 else {}

    @cached_property
    def finite(self) -> bool:
        return powers_finite(self.exponents, self.count, self.dtype)

    def dense(self) -> Tensor:
        out = torch.empty(self.count, dtype=self.dtype, device=self.exponents.device)
        self.put_into(out)
        return out

    def _is_like(self, vector: Tensor) -> bool:
        is_near = vector.device == self.exponents.device and vector.is_contiguous()
        return vector.dtype == self.dtype and is_near

    def put_into(self, out: Tensor) -> None:
        if self._is_like(out):
            put_powers(self.exponents, out, self.tails, self.mantissa_bits)
        else:
            super().put_into(out)

    def add_to(self, total: Tensor) -> None:
        if self._is_like(total):
            add_powers(self.exponents, total, self.tails, self.mantissa_bits)
        else:
            super().add_to(total)

    def unsent_of(self, vector: Tensor) -> Tensor:
        if not self._is_like(vector):
            return super().unsent_of(vector)
        add_powers(self.exponents, vector, self.tails, self.mantissa_bits, subtract=True)
        return vector

    def scaled(self, factor: float) -> Self:
        return type(self).of(scaled_values(self.values, factor), self.mantissa_bits, self.offset)

    def part(self, start: int, stop: int) -> Self:
        low, high = start - self.offset, stop - self.offset
        exponent_bits, mantissa_bits_ = EXPONENT_BITS[self.dtype], self.mantissa_bits
        return type(self)(
            exponents=slice_bits(self.exponents, exponent_bits * low, exponent_bits * high),
            tails=slice_bits(self.tails, mantissa_bits_ * low, mantissa_bits_ * high),
            mantissa_bits=mantissa_bits_, count=stop - start, dtype=self.dtype, offset=start,
        )  # fmt: skip

    def payload(self) -> list[PayloadPart]:
        return [_FIELDS.pack(self.offset, self.count, self.mantissa_bits), self.exponents, self.tails]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        if payload.numel() < _FIELDS.size:
            raise WireError(f"short floats: a payload of {payload.numel()} bytes has no room for its fields")
        offset, count, mantissa_bits = _FIELDS.unpack(bytes(payload[: _FIELDS.size].numpy()))
        check_range(offset, count, max_count)
        if dtype not in EXPONENT_BITS or mantissa_bits > MAX_MANTISSA_BITS:
            raise WireError(f"short floats: {mantissa_bits} bits of mantissa of {dtype}: not of this version")
        exponent_bytes = (EXPONENT_BITS[dtype] * count + 7) // 8
        check_length(payload, _FIELDS.size + exponent_bytes + (mantissa_bits * count + 7) // 8, "short floats")
        exponents, tails = payload[_FIELDS.size :][:exponent_bytes], payload[_FIELDS.size + exponent_bytes :]
        check_padding(int(exponents[-1]), EXPONENT_BITS[dtype] * count)
        if mantissa_bits:
            check_padding(int(tails[-1]), mantissa_bits * count)
        packet = cls(
            exponents=exponents, tails=tails, mantissa_bits=mantissa_bits, count=count, dtype=dtype, offset=offset
        )
        if not packet.finite:
            raise WireError("short floats: inf or NaN among the values")
        return packet
