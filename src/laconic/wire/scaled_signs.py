"""One bit for every coordinate and one scale for every block. FORMAT.md, section 3.3."""

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.kernels import plain
from laconic.wire.head import VALUE_BITS, WireError
from laconic.wire.packet import Packet, Piece, check_length, check_padding, check_range

_FIELDS = struct.Struct("<IIII")


@dataclass(frozen=True, kw_only=True)
class ScaledSigns(Packet):
    """negative: (count,) bool; scales: (blocks,) of dtype, not negative; lengths: block sizes, adding up to count."""

    kind: ClassVar[int] = 5
    name: ClassVar[str] = "scaled signs"
    negative: Tensor
    scales: Tensor
    lengths: tuple[int, ...]
    first: int

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.negative.numel()

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.scales.dtype

    @property
    def payload_bits(self) -> int:
        return self.count + VALUE_BITS[self.dtype] * len(self.lengths)

    @property
    def paper_bits(self) -> float:
        return float(self.count + 32 * len(self.lengths))

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"value type": self.payload_bits - self.paper_bits} if self.dtype != torch.float32 else {}

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.scales).all())

    def dense(self) -> Tensor:
        signs = plain.scatter_signs(self.negative, None, self.dtype)
        lengths = torch.tensor(self.lengths, device=signs.device)
        return signs.mul_(self.scales.repeat_interleave(lengths, output_size=self.count))

    def part(self, first: int, stop: int) -> Self:
        raise AssertionError("scaled signs are cut only by methods that do not claim to be separable")

    def body(self) -> list[Piece]:
        size = uniform_size(self.lengths)
        table = b"" if size else struct.pack(f"<{len(self.lengths)}I", *self.lengths)
        fields = _FIELDS.pack(self.first, self.count, size, len(self.lengths))
        return [fields, table, self.scales.contiguous(), plain.pack_bits(self.negative)]

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        if body.numel() < _FIELDS.size:
            raise WireError(f"scaled signs: a body of {body.numel()} bytes has no room for its fields")
        raw = bytes(body[: _FIELDS.size].numpy())
        first, count, size, blocks = _FIELDS.unpack(raw)
        check_range(first, count, most)
        expected_blocks = blocks if size == 0 else -(-count // size)
        if not 1 <= blocks <= count or blocks != expected_blocks or size > count:
            raise WireError(f"scaled signs: {blocks} blocks of {size} for {count} coordinates")
        table_bytes = 0 if size else 4 * blocks
        scale_bytes = blocks * (VALUE_BITS[dtype] // 8)
        check_length(body, _FIELDS.size + table_bytes + scale_bytes + (count + 7) // 8, "scaled signs")
        rest = body[_FIELDS.size :]
        lengths = (
            uniform_lengths(size, count) if size else struct.unpack(f"<{blocks}I", bytes(rest[:table_bytes].numpy()))
        )
        if sum(lengths) != count or min(lengths) < 1:
            raise WireError(f"scaled signs: block lengths do not add up to {count}")
        if size == 0 and uniform_size(lengths):
            raise WireError(f"scaled signs: a table of lengths where a block size of {lengths[0]} says the same")
        scales = rest[table_bytes : table_bytes + scale_bytes].clone().view(dtype)  # clone: the view must be aligned
        if not bool((torch.isfinite(scales) & (scales >= 0)).all()):
            raise WireError("scaled signs: a scale is negative, inf or NaN")
        check_padding(int(body[-1]), count)
        negative = plain.unpack_bits(rest[table_bytes + scale_bytes :], count)
        return cls(negative=negative, scales=scales, lengths=lengths, first=first)


def uniform_lengths(size: int, count: int) -> tuple[int, ...]:
    """Blocks of `size`, the last one shorter where it must be."""
    whole, rest = divmod(count, size)
    return (size,) * whole + ((rest,) if rest else ())


def uniform_size(lengths: tuple[int, ...]) -> int:
    """The length that all blocks share, save that the last one may be shorter; 0 where they do not."""
    size = lengths[0]
    return size if lengths[-1] <= size and all(length == size for length in lengths[:-1]) else 0
