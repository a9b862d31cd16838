"""One bit for every coordinate and one scale for every block. FORMAT.md, section 3.3."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.buffer_pool import LONG_BYTES
from laconic.errors import WireError
from laconic.kernels.api import (
    BlockLengths,
    absolute_maximum,
    add_scaled_signs,
    note_place,
    part_of,
    put_scaled_signs,
    scatter_packed_signs,
)
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.blocks import (
    FIELDS_BYTES,
    blocks_between,
    copy_of,
    largest_size,
    read_block_fields,
    read_lengths,
    values_of,
    write_blocks,
)
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_padding, check_range, scaled_values
from laconic.wire.packets.signs import bits_between, flipped

_FIELDS = struct.Struct("<II")
_MAX_ACROSS = 1 << 10  # more blocks are hardly those of tensors


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
    count: int = field(init=False, repr=False, compare=False)
    """Number of coordinates, which the lengths add up to."""
    dtype: torch.dtype = field(init=False, repr=False, compare=False)
    """Type of the scales."""

    def __post_init__(self) -> None:
        fields, lengths = self.__dict__, self.lengths  # which are read many times in each round
        if type(lengths) is not BlockLengths:
            lengths = fields["lengths"] = BlockLengths.of(lengths)
        fields["count"], fields["dtype"] = lengths.total, self.scales.dtype

    @property
    def payload_bits(self) -> int:
        return self.count + VALUE_BITS[self.dtype] * self.lengths.n_blocks

    @property
    def paper_bits(self) -> float:
        return float(self.count + 32 * self.lengths.n_blocks)

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"value type": self.payload_bits - self.paper_bits} if self.dtype != torch.float32 else {}

    @property
    def minimum_bits(self) -> float:
        return float(self.payload_bits)

    @cached_property
    def absolute_maximum(self) -> float:
        if not self.lengths.n_blocks or self.scales.nbytes >= LONG_BYTES:
            return absolute_maximum(self.scales)
        low, high = self.scales.aminmax()  # in fewer calls
        below, above = -float(low), float(high)
        return below if below > above else above  # NaN, where one of them is

    def dense(self) -> Tensor:
        full = torch.empty(self.count, dtype=self.scales.dtype, device=self.packed.device)
        self.put_into(full)
        return full

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the signs and the scales on a device."""
        return self.packed.to(device), self.scales.to(device)

    def put_into(self, out: Tensor) -> None:
        if out.is_cpu and self.packed.is_cpu and self.scales.is_cpu:
            put_scaled_signs(self.packed, self.scales, self.lengths, out)
        else:
            put_scaled_signs(*self._on(out.device), self.lengths, out)

    @property
    def goes_across(self) -> bool:
        return self.packed.is_cpu and self.scales.is_cpu and self.lengths.n_blocks <= _MAX_ACROSS

    def put_across(self, tensors: Sequence[Tensor]) -> None:
        factors = self._factors_of([tensor.numel() for tensor in tensors]) if self.goes_across else None
        if factors is None:
            super().put_across(tensors)
        else:
            scatter_packed_signs(self.packed, factors, tensors)

    def _factors_of(self, sizes: Sequence[int]) -> list[float] | None:
        """Return the scale of each tensor of these sizes; None if one has several."""
        factors, scales, lengths, left = [], iter(self.scales.tolist()), iter(self.lengths), 0
        for size in sizes:
            if size and not left:
                left, scale = next(lengths), next(scales)
            if size > left:
                return None
            factors.append(scale if size else 0.0)
            left -= size
        return factors

    def add_to(self, total: Tensor) -> None:
        add_scaled_signs(*self._on(total.device), self.lengths, total)

    def put_as_sum(self, out: Tensor) -> None:
        if bool((self.scales > 0).all()):  # then none of its zeros is -0.0
            self.put_into(out)
        else:
            super().put_as_sum(out)

    def unsent_of(self, vector: Tensor) -> Tensor:
        packed, scales = self.packed, self.scales
        if not (vector.is_cpu and packed.is_cpu and scales.is_cpu):
            packed, scales = self._on(vector.device)
        add_scaled_signs(packed, note_place(-scales), self.lengths, vector)
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
        scales = copy_of(self.scales)  # the sender may overwrite its own
        return type(self)(packed=self.packed, scales=scales, lengths=self.lengths, offset=self.offset)

    @property
    def encoded_bytes(self) -> int:
        table_bytes = 0 if self.lengths.size else 4 * self.lengths.n_blocks
        return _FIELDS.size + FIELDS_BYTES + table_bytes + self.scales.nbytes + self.packed.nbytes

    def payload(self) -> list[PayloadPart]:
        fields = _FIELDS.pack(self.offset, self.count) + write_blocks(self.lengths)
        return [fields, self.scales.contiguous(), self.packed]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        at = _FIELDS.size + FIELDS_BYTES
        if payload.nbytes < at:
            raise WireError(f"scaled signs: a payload of {payload.nbytes} bytes has no room for its fields")
        raw = bytes(payload[:at].numpy())
        offset, count = _FIELDS.unpack(raw[: _FIELDS.size])
        if count < 1 or offset + count > max_count:
            check_range(offset, count, max_count)
        size, blocks, table_bytes = read_block_fields(raw[_FIELDS.size :], count, cls.name)
        scale_bytes = blocks * (VALUE_BITS[dtype] // 8)
        if payload.nbytes != at + table_bytes + scale_bytes + (count + 7) // 8:
            check_length(payload, at + table_bytes + scale_bytes + (count + 7) // 8, "scaled signs")
        lengths = read_lengths(payload[at : at + table_bytes], size, blocks, count, cls.name)
        start = at + table_bytes + scale_bytes
        scales = values_of(payload[at + table_bytes : start], dtype)
        largest = largest_size(scales)
        if largest is None:
            raise WireError("scaled signs: a scale is negative, inf or NaN")
        if count % 8:
            check_padding(int(payload[-1]), count)
        packed = part_of(payload, start, payload.nbytes)
        made = cls(packed=packed, scales=scales, lengths=lengths, offset=offset)
        made.__dict__["absolute_maximum"] = largest
        return made
