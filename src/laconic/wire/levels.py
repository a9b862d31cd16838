"""A sign and a level for every coordinate, levels being equal parts of a block's scale. FORMAT.md, section 3.9."""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.kernels import levels_dense
from laconic.wire.blocks import FIELDS_BYTES, read_block_fields, read_lengths, write_blocks
from laconic.wire.head import VALUE_BITS, WireError
from laconic.wire.packet import Packet, Piece, check_range
from laconic.wire.symbol_codes import SYMBOL_CODES, decode_symbols, encode_symbols, pack_symbols, unpack_symbols

_FIELDS = struct.Struct("<IIHBB")
MOST_STEPS = 255


def level_bits(steps: int) -> int:
    """The bits of one coordinate in the code "packed": a sign, and a level of 0 .. steps."""
    return 1 + steps.bit_length()


@dataclass(frozen=True, kw_only=True)
class Levels(Packet):
    """levels: (count,) int16 in -steps .. steps; scales: (blocks,) >= 0; lengths: block sizes, adding up to count.

    Level i stands for scale * i / steps. entropy: levels take bits by how often each is there.
    """

    kind: ClassVar[int] = 11
    name: ClassVar[str] = "levels"
    levels: Tensor
    scales: Tensor
    lengths: tuple[int, ...]
    steps: int
    entropy: bool = False
    first: int = 0

    @cached_property
    def stream(self) -> tuple[Tensor, int]:
        """The levels' bytes (n,) uint8 and their payload bits."""
        if self.entropy:
            return encode_symbols(self.levels.int() + self.steps, 2 * self.steps + 1)
        bits = level_bits(self.steps)
        codes = self.levels.int().abs() + ((self.levels < 0).int() << (bits - 1))
        return pack_symbols(codes, bits), bits * self.count

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.levels.numel()

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.scales.dtype

    @property
    def _packed_bits(self) -> int:
        return level_bits(self.steps) * self.count

    @property
    def payload_bits(self) -> int:
        levels_bits = self.stream[1] if self.entropy else self._packed_bits
        return levels_bits + VALUE_BITS[self.dtype] * len(self.lengths)

    @property
    def paper_bits(self) -> float:
        return float(self._packed_bits + 32 * len(self.lengths))

    @property
    def named_overheads(self) -> dict[str, float]:
        wide = float((VALUE_BITS[self.dtype] - 32) * len(self.lengths))
        named = {"value type": wide} if wide else {}
        return named | ({"entropy code": float(self.stream[1] - self._packed_bits)} if self.entropy else {})

    @property
    def finite(self) -> bool:
        return bool(torch.isfinite(self.scales).all())

    def dense(self) -> Tensor:
        return levels_dense(self.levels, self.scales, self.lengths, self.steps)

    def part(self, first: int, stop: int) -> Self:
        raise AssertionError("a packet of levels is cut only by methods that do not claim to be separable")

    def body(self) -> list[Piece]:
        fields = _FIELDS.pack(self.first, self.count, self.steps, int(self.entropy), 0) + write_blocks(self.lengths)
        return [fields, self.scales.contiguous(), self.stream[0]]

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        at = _FIELDS.size + FIELDS_BYTES
        if body.numel() < at:
            raise WireError(f"levels: a body of {body.numel()} bytes has no room for its fields")
        raw = bytes(body[:at].numpy())
        first, count, steps, code, zero = _FIELDS.unpack(raw[: _FIELDS.size])
        check_range(first, count, most)
        if not 1 <= steps <= MOST_STEPS or code >= len(SYMBOL_CODES) or zero:
            raise WireError(f"levels: {steps} levels, code {code}, reserved byte {zero}: not of this version")
        size, blocks, table_bytes = read_block_fields(raw[_FIELDS.size :], count, cls.name)
        scale_bytes = blocks * (VALUE_BITS[dtype] // 8)
        if body.numel() < at + table_bytes + scale_bytes:
            raise WireError(f"levels: a body of {body.numel()} bytes has no room for {blocks} blocks")
        rest = body[at:]
        lengths = read_lengths(rest[:table_bytes], size, blocks, count, cls.name)
        scales = rest[table_bytes : table_bytes + scale_bytes].clone().view(dtype)  # clone: the view must be aligned
        if not bool((torch.isfinite(scales) & (scales >= 0)).all()):
            raise WireError("levels: a scale is negative, inf or NaN")
        data = rest[table_bytes + scale_bytes :]
        if code:
            symbols, n_bits = decode_symbols(data, count, 2 * steps + 1, cls.name)
            levels = (symbols - steps).to(torch.int16)
        else:
            levels, n_bits = _unpacked(data, count, steps), level_bits(steps) * count
        packet = cls(levels=levels, scales=scales, lengths=lengths, steps=steps, entropy=bool(code), first=first)
        packet.__dict__["stream"] = (data, n_bits)  # the cached property: it is at hand
        return packet


def _unpacked(data: Tensor, count: int, steps: int) -> Tensor:
    """Signed levels (count,) int16 from codes with the sign on top. Raises WireError."""
    bits = level_bits(steps)
    codes = unpack_symbols(data, count, bits, Levels.name)
    top = 1 << (bits - 1)
    magnitudes = codes & (top - 1)
    if bool(((magnitudes > steps) | (codes == top)).any()):
        raise WireError(f"levels: a level above {steps}, or a zero with a minus sign")
    return torch.where(codes >= top, -magnitudes, magnitudes).to(torch.int16)
