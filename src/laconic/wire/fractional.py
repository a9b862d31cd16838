"""A sign and a level for every value, and the mean magnitude of every level. FORMAT.md, section 3.7."""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.kernels import level_dtype, pack_codes, unpack_codes
from laconic.wire.head import VALUE_BITS, WireError
from laconic.wire.packet import Packet, Piece, check_length, check_padding, check_range

_FIELDS = struct.Struct("<III")
MOST_BITS = 16
MOST_LEVELS = 1 << (MOST_BITS - 1)


@dataclass(frozen=True, kw_only=True)
class Fractional(Packet):
    """negative: (count,) bool; levels: (count,) uint8 up to 9 bits, int16 above; means: (2**(bits-1),) >= 0."""

    kind: ClassVar[int] = 9
    name: ClassVar[str] = "fractional"
    negative: Tensor
    levels: Tensor
    means: Tensor
    bits: int  # of one value, its sign among them
    first: int = 0

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.levels.numel()

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
    def finite(self) -> bool:
        return bool(torch.isfinite(self.means).all())

    def dense(self) -> Tensor:
        magnitudes = self.means.index_select(0, self.levels.int())
        return torch.where(self.negative, -magnitudes, magnitudes)

    def part(self, first: int, stop: int) -> Self:
        raise AssertionError("a fractional packet is cut only by methods that do not claim to be separable")

    def body(self) -> list[Piece]:
        codes = self.levels.int() + (self.negative.int() << (self.bits - 1))
        fields = _FIELDS.pack(self.first, self.count, self.bits)
        return [fields, self.means.contiguous(), pack_codes(codes, self.bits)]

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        if body.numel() < _FIELDS.size:
            raise WireError(f"fractional: a body of {body.numel()} bytes has no room for its fields")
        first, count, bits = _FIELDS.unpack(bytes(body[: _FIELDS.size].numpy()))
        check_range(first, count, most)
        if not 1 <= bits <= MOST_BITS:
            raise WireError(f"fractional: {bits} bits a value; 1 .. {MOST_BITS} are allowed")
        n_levels = 1 << (bits - 1)
        mean_bytes = n_levels * (VALUE_BITS[dtype] // 8)
        check_length(body, _FIELDS.size + mean_bytes + (bits * count + 7) // 8, "fractional")
        rest = body[_FIELDS.size :]
        means = rest[:mean_bytes].clone().view(dtype)  # clone: the view must be aligned
        if not bool((torch.isfinite(means) & (means >= 0)).all()):
            raise WireError("fractional: a mean is negative, inf or NaN")
        check_padding(int(body[-1]), bits * count)
        codes = unpack_codes(rest[mean_bytes:], count, bits)
        levels = (codes & (n_levels - 1)).to(level_dtype(bits))
        return cls(negative=codes >= n_levels, levels=levels, means=means, bits=bits, first=first)
