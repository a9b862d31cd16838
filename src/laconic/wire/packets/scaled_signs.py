"""One bit for every coordinate and one scale for every block. FORMAT.md, section 3.3."""

import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import BlockLengths, absolute_maximum, add_scaled_signs, are_sizes, put_scaled_signs
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.blocks import (
    FIELDS_BYTES,
    blocks_between,
    copy_of,
    read_block_fields,
    read_lengths,
    values_of,
    write_blocks,
)
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_padding, check_range, scaled_values
from laconic.wire.packets.signs import bits_between, flipped

_FIELDS = struct.Struct("<II")


@dataclass(frozen=True, kw_only=True)
class ScaledSigns(Packet):
    """A sign for every coordinate, times the scale of its block."""

    kind: ClassVar[int] = 5
    name: ClassVar[str] = "scaled signs"
    is_nestable: ClassVar[bool] = True
    packed: Tensor
    """(ceil(count / 8),) uint8, one bit a coordinate, set for -1."""
    scales: Tensor
    """(blocks,) of type `dtype`, not negative."""
    lengths: BlockLengths
    """Sizes of the blocks, which add up to `count`."""
    offset: int
    """Number of the first coordinate."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", BlockLengths.of(self.lengths))

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.lengths.total

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.scales.dtype

    @property
    def value_type(self) -> torch.dtype:
        return self.scales.dtype

    @property
    def payload_bits(self) -> int:
        return self.count + VALUE_BITS[self.scales.dtype] * len(self.lengths)

    @property
    def paper_bits(self) -> float:
        return float(self.count + 32 * len(self.lengths))

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"value type": self.payload_bits - self.paper_bits} if self.dtype != torch.float32 else {}

    @property
    def minimum_bits(self) -> float:
        return float(self.payload_bits)

    @cached_property
    def absolute_maximum(self) -> float:
        return absolute_maximum(self.scales)

    def dense(self) -> Tensor:
        full = torch.empty(self.count, dtype=self.scales.dtype, device=self.packed.device)
        self.put_into(full)
        return full

    def put_into(self, out: Tensor) -> None:
        put_scaled_signs(self.packed.to(out.device), self.scales.to(out.device), self.lengths, out)

    def add_to(self, total: Tensor) -> None:
        add_scaled_signs(self.packed.to(total.device), self.scales.to(total.device), self.lengths, total)

    def put_as_sum(self, out: Tensor) -> None:
        if bool((self.scales > 0).all()):  # then none of its zeros is -0.0
            self.put_into(out)
        else:
            super().put_as_sum(out)

    def unsent_of(self, vector: Tensor) -> Tensor:
        device = vector.device
        add_scaled_signs(self.packed.to(device), -self.scales.to(device), self.lengths, vector)
        return vector

    def scaled(self, factor: float) -> Self:
        packed = flipped(self.packed, self.count) if factor < 0 else self.packed
        return replace(self, packed=packed, scales=scaled_values(self.scales, abs(factor)))

    def part(self, start: int, stop: int) -> Self:
        low, high = start - self.offset, stop - self.offset
        blocks, lengths = blocks_between(self.lengths, low, high)
        packed = bits_between(self.packed, self.count, low, high)
        return type(self)(packed=packed, scales=self.scales[blocks], lengths=lengths, offset=start)

    def as_read(self) -> Self | None:
        if self.packed.device.type != "cpu" or not bool((self.scales >= 0).all()):  # a reader refuses such scales
            return None
        return replace(self, scales=copy_of(self.scales))  # the sender may overwrite its own

    def payload(self) -> list[PayloadPart]:
        fields = _FIELDS.pack(self.offset, self.count) + write_blocks(self.lengths)
        return [fields, self.scales.contiguous(), self.packed]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        at = _FIELDS.size + FIELDS_BYTES
        if payload.numel() < at:
            raise WireError(f"scaled signs: a payload of {payload.numel()} bytes has no room for its fields")
        raw = bytes(payload[:at].numpy())
        offset, count = _FIELDS.unpack(raw[: _FIELDS.size])
        check_range(offset, count, max_count)
        size, blocks, table_bytes = read_block_fields(raw[_FIELDS.size :], count, cls.name)
        scale_bytes = blocks * (VALUE_BITS[dtype] // 8)
        check_length(payload, at + table_bytes + scale_bytes + (count + 7) // 8, "scaled signs")
        rest = payload[at:]
        lengths = read_lengths(rest[:table_bytes], size, blocks, count, cls.name)
        scales = values_of(rest[table_bytes : table_bytes + scale_bytes], dtype)
        if not are_sizes(scales):
            raise WireError("scaled signs: a scale is negative, inf or NaN")
        check_padding(int(payload[-1]), count)
        return cls(packed=rest[table_bytes + scale_bytes :], scales=scales, lengths=lengths, offset=offset)
