"""A sign and a level for every value, and the mean magnitude of every level. FORMAT.md, section 3.7."""

import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import (
    absolute_maximum,
    add_fractional,
    are_sizes,
    fractional_dense,
    pack_codes,
    put_fractional,
    slice_bits,
    unpack_codes,
)
from laconic.wire.coding.symbols import entropy_bits
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.blocks import values_of
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_padding, check_range, scaled_values

_FIELDS = struct.Struct("<III")
MAX_BITS = 16
MAX_LEVELS = 1 << (MAX_BITS - 1)


@dataclass(frozen=True, kw_only=True)
class FractionalValues(Packet):
    """A code for every value: the level in its low bits, the sign in its highest bit."""

    kind: ClassVar[int] = 9
    name: ClassVar[str] = "fractional"
    is_nestable: ClassVar[bool] = True
    packed: Tensor
    """(ceil(bits count / 8),) uint8, the packed codes."""
    count: int
    """Number of coordinates."""
    means: Tensor
    """(2**(bits-1),) of type `dtype`, not negative: the mean magnitude of each level."""
    bits: int
    """Bits of a value, its sign included."""
    offset: int = 0
    """Number of the first coordinate."""

    @property
    def negative(self) -> Tensor:
        """Which values are negative, (count,) bool."""
        return unpack_codes(self.packed, self.count, self.bits) >= 1 << (self.bits - 1)

    @property
    def levels(self) -> Tensor:
        """The levels, (count,) int32 below 2**(bits-1). Level 0 has the largest magnitudes."""
        return unpack_codes(self.packed, self.count, self.bits) & ((1 << (self.bits - 1)) - 1)

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.means.dtype

    @property
    def payload_bits(self) -> int:
        return self.bits * self.count + VALUE_BITS[self.dtype] * self.means.numel()

    @property
    def paper_bits(self) -> float:
        return float(self.bits * self.count)

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"level means": float(VALUE_BITS[self.dtype] * self.means.numel())}

    @property
    def minimum_bits(self) -> float:
        codes = unpack_codes(self.packed.cpu(), self.count, self.bits)
        return entropy_bits(codes) + VALUE_BITS[self.dtype] * self.means.numel()

    @cached_property
    def absolute_maximum(self) -> float:
        return absolute_maximum(self.means)

    def dense(self) -> Tensor:
        return fractional_dense(self.packed, self.means, self.count, self.bits)

    def put_into(self, out: Tensor) -> None:
        put_fractional(self.packed.to(out.device), self.means.to(out.device), self.count, self.bits, out)

    def add_to(self, total: Tensor) -> None:
        add_fractional(self.packed, self.means, self.count, self.bits, total)

    def unsent_of(self, vector: Tensor) -> Tensor:
        add_fractional(self.packed, -self.means, self.count, self.bits, vector)
        return vector

    def scaled(self, factor: float) -> Self:
        packed = self.packed
        if factor < 0:  # the highest bit of a code is its sign
            packed = pack_codes(unpack_codes(packed, self.count, self.bits) ^ 1 << (self.bits - 1), self.bits)
        return replace(self, packed=packed, means=scaled_values(self.means, abs(factor)))

    def part(self, start: int, stop: int) -> Self:
        low, high = start - self.offset, stop - self.offset
        packed = slice_bits(self.packed, self.bits * low, self.bits * high)
        return type(self)(packed=packed, count=stop - start, means=self.means, bits=self.bits, offset=start)

    def payload(self) -> list[PayloadPart]:
        return [_FIELDS.pack(self.offset, self.count, self.bits), self.means.contiguous(), self.packed]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        if payload.numel() < _FIELDS.size:
            raise WireError(f"fractional: a payload of {payload.numel()} bytes has no room for its fields")
        offset, count, bits = _FIELDS.unpack(bytes(payload[: _FIELDS.size].numpy()))
        check_range(offset, count, max_count)
        if not 1 <= bits <= MAX_BITS:
            raise WireError(f"fractional: {bits} bits a value; 1 .. {MAX_BITS} are allowed")
        n_levels = 1 << (bits - 1)
        mean_bytes = n_levels * (VALUE_BITS[dtype] // 8)
        check_length(payload, _FIELDS.size + mean_bytes + (bits * count + 7) // 8, "fractional")
        rest = payload[_FIELDS.size :]
        means = values_of(rest[:mean_bytes], dtype)
        if not are_sizes(means):
            raise WireError("fractional: a mean is negative, inf or NaN")
        check_padding(int(payload[-1]), bits * count)
        return cls(packed=rest[mean_bytes:], count=count, means=means, bits=bits, offset=offset)
