"""A code for every coordinate, and the range of values of every block. FORMAT.md, section 3.8."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import (
    BlockLengths,
    absolute_maximum,
    add_dequantized,
    are_ranges,
    dequantize,
    pack_codes,
    put_dequantized,
    put_moved,
    slice_bits,
    sum_dequantized,
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
from laconic.wire.packets.late_codes import LateCodes
from laconic.wire.packets.packet import Ends, Packet, PayloadPart, check_range, scaled_values

_FIELDS = struct.Struct("<IIBBH")
_ENTROPY_AT = 9
MAX_BITS = 8


@dataclass(frozen=True, kw_only=True)
class QuantizedValues(Packet):
    """A code for every coordinate. Code i stands for low + i * (high - low) / (2**bits - 1)."""

    kind: ClassVar[int] = 10
    name: ClassVar[str] = "quantized"
    is_nestable: ClassVar[bool] = True
    packed: Tensor
    """(ceil(bits count / 8),) uint8, the packed codes."""
    count: int
    """Number of coordinates."""
    lows: Tensor
    """(blocks,) of type `dtype`, the value of code 0."""
    highs: Tensor
    """(blocks,) of the same type, at least `lows`: the value of the largest code."""
    lengths: BlockLengths
    """Sizes of the blocks, which add up to `count`."""
    bits: int
    """Bits of a code, 1 .. 8."""
    entropy: bool = False
    """Whether codes are sent in an entropy code, shorter for frequent codes."""
    offset: int = 0
    """Number of the first coordinate."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", BlockLengths.of(self.lengths))

    @classmethod
    def late(cls, codes: LateCodes, ends: Ends, bits: int, offset: int) -> Self:
        """Return the packet of one block whose codes are made when `packed` is read first, or when they are sent."""
        count = codes.values.numel()
        packet = cls(
            packed=codes.packed, count=count, lows=ends[0], highs=ends[1], lengths=BlockLengths.uniform(count, count),
            bits=bits, offset=offset,
        )  # fmt: skip
        fields = packet.__dict__
        del fields["packed"]
        fields["late_codes"] = codes
        return packet

    @property
    def late_codes(self) -> LateCodes | None:
        """What makes the codes, where they are made late."""
        return self.__dict__.get("late_codes")

    if not TYPE_CHECKING:  # so that other names are still looked for

        def __getattr__(self, name: str) -> object:
            """Make `packed`, the only field that a packet may lack. Raises AttributeError for other names."""
            late = self.__dict__.get("late_codes")
            if name != "packed" or late is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.__dict__["packed"] = late.all()
            return self.__dict__["packed"]

    @cached_property
    def stream(self) -> tuple[Tensor, int]:
        """The bytes of the codes, (n,) uint8, and their payload bits."""
        if self.entropy:
            return encode_symbols(self.codes, 1 << self.bits)
        return self.packed, self.bits * self.count

    @property
    def codes(self) -> Tensor:
        """The codes, (count,) int32 below 2**bits, on the CPU."""
        return unpack_codes(self.packed.cpu(), self.count, self.bits)

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.lows.dtype

    @property
    def _ends_bits(self) -> int:
        return 2 * VALUE_BITS[self.dtype] * len(self.lengths)

    @property
    def payload_bits(self) -> int:
        codes_bits = self.stream[1] if self.entropy else self.bits * self.count
        return codes_bits + self._ends_bits

    @property
    def paper_bits(self) -> float:
        return float(self.bits * self.count)

    @property
    def named_overheads(self) -> dict[str, float]:
        saved = {"entropy code": self.stream[1] - self.paper_bits} if self.entropy else {}
        return {"ends of ranges": float(self._ends_bits), **saved}

    @property
    def minimum_bits(self) -> float:
        return entropy_bits(self.codes) + self._ends_bits

    @cached_property
    def absolute_maximum(self) -> float:
        ends = absolute_maximum(self.lows), absolute_maximum(self.highs)
        return math.nan if math.isnan(sum(ends)) else max(ends)

    def dense(self) -> Tensor:
        return dequantize(self.packed, self.lows, self.highs, self.lengths, self.bits)

    def put_into(self, out: Tensor) -> None:
        put_dequantized(*self._on(out.device), self.lengths, self.bits, out)

    def add_to(self, total: Tensor) -> None:
        add_dequantized(*self._on(total.device), self.lengths, self.bits, total)

    def put_moved(self, base: Tensor, out: Tensor) -> None:
        if not out.is_cpu or base.dtype is not out.dtype:
            super().put_moved(base, out)
        else:
            put_moved(base, *self._on(out.device), self.lengths, self.bits, out)

    def put_as_sum(self, out: Tensor) -> None:
        self.put_into(out)  # none of its zeros is -0.0

    @classmethod
    def sum_into(cls, packets: Sequence[Self], out: Tensor, divisor: int = 1) -> bool | Ends:
        one = packets[0]
        alike = (one.bits, one.lengths, out.dtype, out.device)
        if out.device.type != "cpu" or any(
            (each.bits, each.lengths, each.dtype, each.packed.device) != alike for each in packets
        ):
            return False
        ends = [each.lows for each in packets], [each.highs for each in packets]
        codes = [each.packed for each in packets]
        return sum_dequantized(codes, *ends, one.lengths, one.bits, out, divisor=divisor)

    def unsent_of(self, vector: Tensor) -> Tensor:
        add_dequantized(*self._on(vector.device), self.lengths, self.bits, vector, subtract=True)
        return vector

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        return self.packed.to(device), self.lows.to(device), self.highs.to(device)

    def scaled(self, factor: float) -> Self:
        lows, highs = scaled_values(self.lows, factor), scaled_values(self.highs, factor)
        if factor >= 0:
            return replace(self, lows=lows, highs=highs)
        packed = pack_codes(unpack_codes(self.packed, self.count, self.bits) ^ (1 << self.bits) - 1, self.bits)
        return replace(self, packed=packed, lows=highs, highs=lows)

    def part(self, start: int, stop: int) -> Self:
        low, high = start - self.offset, stop - self.offset
        blocks, lengths = blocks_between(self.lengths, low, high)
        return type(self)(
            packed=slice_bits(self.packed, self.bits * low, self.bits * high), count=stop - start,
            lows=self.lows[blocks], highs=self.highs[blocks], lengths=lengths, bits=self.bits, entropy=self.entropy,
            offset=start,
        )  # fmt: skip

    def as_read(self) -> Self | None:
        if self.entropy or self.packed.device.type != "cpu":
            return None
        if not are_ranges(self.lows, self.highs):
            return None  # a reader refuses it
        return replace(self, lows=copy_of(self.lows), highs=copy_of(self.highs))  # the sender may overwrite its own

    def payload(self) -> list[PayloadPart]:
        return [*self._before_codes(), self.stream[0]]

    def late_payload(self) -> list[PayloadPart]:
        """Return the same with codes that are still to be made by `late_codes`."""
        assert self.late_codes is not None, "as the caller knows"
        return [*self._before_codes(), self.late_codes.packed]

    def _before_codes(self) -> list[PayloadPart]:
        fields = _FIELDS.pack(self.offset, self.count, self.bits, int(self.entropy), 0) + write_blocks(self.lengths)
        return [fields, self.lows.contiguous(), self.highs.contiguous()]

    @classmethod
    def read_ahead(cls, payload: Tensor, dtype: torch.dtype, max_count: int, n_landed: int) -> tuple[Self, int] | None:
        """Return a packet whose codes are still coming, and how many have come; nothing of it is checked.

        Args:
            payload: (n,) uint8, as for `read`, of which only the first bytes have come.
            dtype: Type of the ends.
            max_count: As for `read`.
            n_landed: Number of the bytes that have come.

        Returns:
            None while the fields before the codes are not there, and for an entropy code, which is read as a whole.

        Raises:
            WireError: `read` would refuse it.
        """
        if n_landed < _FIELDS.size or payload[_ENTROPY_AT]:
            return None
        packet = cls.read(payload, dtype, max_count)
        n_bytes = n_landed - (payload.numel() - packet.packed.numel())
        return None if n_bytes < 0 else (packet, min(packet.count, 8 * n_bytes // packet.bits))

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        at = _FIELDS.size + FIELDS_BYTES
        if payload.numel() < at:
            raise WireError(f"quantized: a payload of {payload.numel()} bytes has no room for its fields")
        raw = bytes(payload[:at].numpy())
        offset, count, bits, code, zero = _FIELDS.unpack(raw[: _FIELDS.size])
        check_range(offset, count, max_count)
        if not 1 <= bits <= MAX_BITS or code >= len(SYMBOL_CODES) or zero:
            raise WireError(f"quantized: {bits} bits a value, code {code}, reserved bytes {zero}: not of this version")
        size, blocks, table_bytes = read_block_fields(raw[_FIELDS.size :], count, cls.name)
        ends_bytes = 2 * blocks * (VALUE_BITS[dtype] // 8)
        if payload.numel() < at + table_bytes + ends_bytes:
            raise WireError(f"quantized: a payload of {payload.numel()} bytes has no room for {blocks} blocks")
        rest = payload[at:]
        lengths = read_lengths(rest[:table_bytes], size, blocks, count, cls.name)
        ends = values_of(rest[table_bytes : table_bytes + ends_bytes], dtype)
        lows, highs = ends[:blocks], ends[blocks:]
        if not are_ranges(lows, highs):
            raise WireError("quantized: an end of a range is inf or NaN, or a low end above its high end")
        data = rest[table_bytes + ends_bytes :]
        if code:
            codes, n_bits = decode_symbols(data, count, 1 << bits, cls.name)
            packed = pack_codes(codes, bits)
        else:
            check_packed(data, count, bits, cls.name)
            packed, n_bits = data, bits * count
        packet = cls(
            packed=packed, count=count, lows=lows, highs=highs, lengths=lengths, bits=bits, entropy=bool(code),
            offset=offset,
        )  # fmt: skip
        packet.__dict__["stream"] = (data, n_bits)  # the cached property: it is known here
        return packet
