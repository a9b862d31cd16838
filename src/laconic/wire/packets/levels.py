"""A sign and a level for every coordinate; levels are equal parts of a block's scale. FORMAT.md, section 3.9."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import (
    BlockLengths,
    absolute_maximum,
    add_levels,
    are_sizes,
    level_bits,
    levels_allowed,
    levels_dense,
    pack_codes,
    put_levels,
    slice_bits,
    sum_levels,
    unpack_codes,
)
from laconic.wire.coding.symbols import SYMBOL_CODES, check_packed, decode_symbols, encode_symbols, entropy_bits
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
from laconic.wire.packets.packet import Packet, PayloadPart, check_range, scaled_values

_FIELDS = struct.Struct("<IIHBB")
MAX_STEPS = 255


@dataclass(frozen=True, kw_only=True)
class Levels(Packet):
    """A signed level for every coordinate, in -steps .. steps. Level i stands for scale * i / steps.

    The low bits of a packed level are its magnitude; the highest bit is set for a negative level.
    """

    kind: ClassVar[int] = 11
    name: ClassVar[str] = "levels"
    is_nestable: ClassVar[bool] = True
    packed: Tensor
    """(ceil(level_bits(steps) count / 8),) uint8, the packed levels."""
    count: int
    """Number of coordinates."""
    scales: Tensor
    """(blocks,) of type `dtype`, not negative."""
    lengths: BlockLengths
    """Sizes of the blocks, which add up to `count`."""
    steps: int
    """Number of levels above zero, 1 .. 255."""
    entropy: bool = False
    """Whether levels are sent in an entropy code, shorter for frequent levels."""
    offset: int = 0
    """Number of the first coordinate."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", BlockLengths.of(self.lengths))

    @cached_property
    def stream(self) -> tuple[Tensor, int]:
        """The bytes of the levels, (n,) uint8, and their payload bits."""
        if self.entropy:
            return encode_symbols(self.levels + self.steps, 2 * self.steps + 1)
        return self.packed, self._packed_bits

    @property
    def levels(self) -> Tensor:
        """The levels, (count,) int32 in -steps .. steps, on the CPU."""
        bits = level_bits(self.steps)
        codes = unpack_codes(self.packed.cpu(), self.count, bits)
        top = 1 << (bits - 1)
        return torch.where(codes >= top, top - codes, codes)

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
    def minimum_bits(self) -> float:
        return entropy_bits(self.levels) + VALUE_BITS[self.dtype] * len(self.lengths)

    @cached_property
    def absolute_maximum(self) -> float:
        return absolute_maximum(self.scales)

    def dense(self) -> Tensor:
        return levels_dense(self.packed, self.scales, self.lengths, self.steps)

    def put_into(self, out: Tensor) -> None:
        put_levels(*self._on(out.device), self.lengths, self.steps, out)

    def add_to(self, total: Tensor) -> None:
        add_levels(*self._on(total.device), self.lengths, self.steps, total)

    def put_as_sum(self, out: Tensor) -> None:
        if bool((self.scales > 512 * torch.finfo(self.dtype).tiny).all()):  # then no level below zero rounds to -0.0
            self.put_into(out)
        else:
            super().put_as_sum(out)

    @classmethod
    def sum_into(cls, packets: Sequence[Self], out: Tensor, divisor: int = 1) -> bool:
        one = packets[0]
        alike = (one.steps, one.lengths, out.dtype, out.device)
        if out.device.type != "cpu" or any(
            (each.steps, each.lengths, each.dtype, each.packed.device) != alike for each in packets
        ):
            return False
        scales = [each.scales for each in packets]
        sum_levels([each.packed for each in packets], scales, one.lengths, one.steps, out, divisor=divisor)
        return True

    def unsent_of(self, vector: Tensor) -> Tensor:
        add_levels(*self._on(vector.device), self.lengths, self.steps, vector, subtract=True)
        return vector

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        return self.packed.to(device), self.scales.to(device)

    def scaled(self, factor: float) -> Self:
        packed = pack_levels(-self.levels, self.steps) if factor < 0 else self.packed
        return replace(self, packed=packed, scales=scaled_values(self.scales, abs(factor)))

    def part(self, start: int, stop: int) -> Self:
        low, high = start - self.offset, stop - self.offset
        blocks, lengths = blocks_between(self.lengths, low, high)
        bits = level_bits(self.steps)
        return type(self)(
            packed=slice_bits(self.packed, bits * low, bits * high), count=stop - start, scales=self.scales[blocks],
            lengths=lengths, steps=self.steps, entropy=self.entropy, offset=start,
        )  # fmt: skip

    def as_read(self) -> Self | None:
        if self.entropy or self.packed.device.type != "cpu":
            return None
        if not are_sizes(self.scales):
            return None  # a reader refuses it
        return replace(self, scales=copy_of(self.scales))  # the sender may overwrite its own

    def payload(self) -> list[PayloadPart]:
        fields = _FIELDS.pack(self.offset, self.count, self.steps, int(self.entropy), 0) + write_blocks(self.lengths)
        return [fields, self.scales.contiguous(), self.stream[0]]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        at = _FIELDS.size + FIELDS_BYTES
        if payload.numel() < at:
            raise WireError(f"levels: a payload of {payload.numel()} bytes has no room for its fields")
        raw = bytes(payload[:at].numpy())
        offset, count, steps, code, zero = _FIELDS.unpack(raw[: _FIELDS.size])
        check_range(offset, count, max_count)
        if not 1 <= steps <= MAX_STEPS or code >= len(SYMBOL_CODES) or zero:
            raise WireError(f"levels: {steps} levels, code {code}, reserved byte {zero}: not of this version")
        size, blocks, table_bytes = read_block_fields(raw[_FIELDS.size :], count, cls.name)
        scale_bytes = blocks * (VALUE_BITS[dtype] // 8)
        if payload.numel() < at + table_bytes + scale_bytes:
            raise WireError(f"levels: a payload of {payload.numel()} bytes has no room for {blocks} blocks")
        rest = payload[at:]
        lengths = read_lengths(rest[:table_bytes], size, blocks, count, cls.name)
        scales = values_of(rest[table_bytes : table_bytes + scale_bytes], dtype)
        if not are_sizes(scales):
            raise WireError("levels: a scale is negative, inf or NaN")
        data = rest[table_bytes + scale_bytes :]
        if code:
            symbols, n_bits = decode_symbols(data, count, 2 * steps + 1, cls.name)
            packed = pack_levels(symbols - steps, steps)
        else:
            n_bits = level_bits(steps) * count
            check_packed(data, count, level_bits(steps), cls.name)
            if not levels_allowed(data, count, steps):
                raise WireError(f"levels: a level above {steps}, or a zero with a minus sign")
            packed = data
        packet = cls(
            packed=packed, count=count, scales=scales, lengths=lengths, steps=steps, entropy=bool(code), offset=offset
        )
        packet.__dict__["stream"] = (data, n_bits)  # the cached property: it is known here
        return packet


def pack_levels(levels: Tensor, steps: int) -> Tensor:
    """Pack signed levels as `Levels` holds them.

    Args:
        levels: (count,) int32 in -steps .. steps.
        steps: Number of levels above zero.

    Returns:
        (ceil(level_bits(steps) count / 8),) uint8.
    """
    bits = level_bits(steps)
    return pack_codes(levels.abs() + ((levels < 0).int() << (bits - 1)), bits)
