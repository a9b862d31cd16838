"""One bit for every coordinate that a keyed Bernoulli draw selects; no positions are sent. FORMAT.md, section 3.2."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import ALL_SELECTED as ALL_SELECTED
from laconic.kernels.api import (
    add_signs,
    count_ones,
    count_selected,
    note_place,
    part_of,
    put_signs,
    scatter_packed_signs,
    selected_bits,
    slice_bits,
)
from laconic.kernels.api import keep_mask as mask_of
from laconic.wire.packets.packet import Packet, PayloadPart, Sizes, check_length, check_padding, check_range

_FIELDS = struct.Struct("<IIQI")
_FEW_SIGNS = 1 << 16  # calls cost more than copies


@dataclass(frozen=True, kw_only=True)
class Signs(Packet):
    """The signs of the selected coordinates. The dense form is -1 or +1 at them, and zero elsewhere.

    Coordinate i is selected iff hash32(i, key) < threshold.
    """

    kind: ClassVar[int] = 4
    name: ClassVar[str] = "signs"
    shows_magnitudes: ClassVar[bool] = False
    absolute_maximum: ClassVar[float] = 1.0
    finite: ClassVar[bool] = True
    packed: Tensor
    """(ceil(n_selected / 8),) uint8, in ascending order of the coordinates, lowest bit first; set for -1."""
    n_selected: int
    """Number of selected coordinates."""
    offset: int
    """Number of the first coordinate."""
    count: int
    """Number of coordinates."""
    key: int
    """Key of the mask, 0 .. 2**64 - 1."""
    threshold: int
    """Threshold of the mask, 1 .. 2**32; 2**32 selects all coordinates."""
    dtype: torch.dtype
    """Type of the dense form."""
    sampled: Tensor | None = field(default=None, compare=False, repr=False)
    """The mask as bits, (ceil(count / 8),) uint8 on the CPU, where it has already been sampled."""

    @property
    def mask(self) -> Tensor | None:
        """Which coordinates are selected, (count,) bool; None when all are."""
        if self.threshold == ALL_SELECTED:
            return None
        return mask_of(self.offset, self.count, self.key, self.threshold, self.packed.device)

    @property
    def payload_bits(self) -> int:
        return self.n_selected

    @property
    def paper_bits(self) -> float:
        return self.count * (self.threshold / ALL_SELECTED)

    @property
    def named_overheads(self) -> dict[str, float]:
        return (
            {"mask drawn, not expected": self.payload_bits - self.paper_bits} if self.threshold < ALL_SELECTED else {}
        )

    @property
    def minimum_bits(self) -> float:
        return float(self.payload_bits)

    def dense(self) -> Tensor:
        out = torch.empty(self.count, dtype=self.dtype, device=self.packed.device)
        self.put_into(out)
        return out

    def put_into(self, out: Tensor) -> None:
        if out.is_cpu and self.packed.is_cpu:
            put_signs(self.packed, self.offset, self.key, self.threshold, out, self.sampled)
            return
        put_signs(self.packed.to(out.device), self.offset, self.key, self.threshold, out, self._sampled_on(out.device))

    def put_at(self, full: Tensor, start: int) -> None:
        if full.is_cpu and self.packed.is_cpu:
            out = part_of(full, start, start + self.count)
            put_signs(self.packed, self.offset, self.key, self.threshold, out, self.sampled)
            return
        super().put_at(full, start)

    @classmethod
    def put_in_row(cls, packets: Sequence[Packet], full: Tensor, start: int) -> bool:
        number, count, offset = 0, 0, packets[0].offset
        for packet in packets:  # a short stream is one number
            if type(packet) is not Signs or packet.threshold != ALL_SELECTED or packet.offset != offset + count:
                return False
            if not packet.packed.is_cpu or count + packet.count > _FEW_SIGNS:
                return False
            number |= int.from_bytes(packet.packed.numpy(), "little") << count
            count += packet.count
        if not full.is_cpu:
            return False
        packed = torch.frombuffer(bytearray(number.to_bytes((count + 7) // 8, "little")), dtype=torch.uint8)
        put_signs(note_place(packed), offset, 0, ALL_SELECTED, part_of(full, start, start + count))
        return True

    @property
    def goes_across(self) -> bool:
        return self.threshold == ALL_SELECTED and self.packed.is_cpu

    def put_across(self, tensors: Sequence[Tensor]) -> None:
        if self.goes_across:
            scatter_packed_signs(self.packed, [1.0] * len(tensors), tensors)
        else:
            super().put_across(tensors)

    def add_to(self, total: Tensor) -> None:
        device = total.device
        add_signs(self.packed.to(device), self.offset, self.key, self.threshold, total, self._sampled_on(device))

    def _sampled_on(self, device: torch.device) -> Tensor | None:
        return None if self.sampled is None or device.type != "cpu" else self.sampled

    def scaled(self, factor: float) -> Self:
        return replace(self, packed=flipped(self.packed, self.n_selected)) if factor < 0 else self

    def part(self, start: int, stop: int) -> Self:
        if self.threshold == ALL_SELECTED:
            low, high = start - self.offset, stop - self.offset
        else:
            low, high = self._selected_before(start), self._selected_before(stop)
        return type(self)(
            packed=bits_between(self.packed, self.n_selected, low, high), n_selected=high - low,
            offset=start, count=stop - start, key=self.key, threshold=self.threshold, dtype=self.dtype,
            sampled=None if self.sampled is None else slice_bits(self.sampled, start - self.offset, stop - self.offset),
        )  # fmt: skip

    def _selected_before(self, coordinate: int) -> int:
        """Return how many coordinates before this one are selected, from the nearest earlier result."""
        at = max(known for known in self._counts_before if known <= coordinate)
        if at < coordinate and self.sampled is not None:
            more = count_ones(self.sampled, [at - self.offset, coordinate - self.offset])[0]
            self._counts_before[coordinate] = self._counts_before[at] + more
        elif at < coordinate:
            more = count_selected(at, coordinate - at, self.key, self.threshold, self.packed.device)
            self._counts_before[coordinate] = self._counts_before[at] + more
        return self._counts_before[coordinate]

    @cached_property
    def _counts_before(self) -> dict[int, int]:
        """How many coordinates are selected before those that were asked for so far."""
        return {self.offset: 0, self.offset + self.count: self.n_selected}

    def sizes(self, bounds: Sequence[int]) -> Sizes:
        if self.sampled is None and self.threshold < ALL_SELECTED:
            return super().sizes(bounds)
        counts, paper_bits = _counts_between(tuple(bounds), self.threshold)
        n_selected = (
            counts
            if self.sampled is None
            else count_ones(self.sampled, [known - self.offset for known in bounds] if self.offset else bounds)
        )
        fixed = _FIELDS.size
        return Sizes([fixed + (k + 7) // 8 for k in n_selected], n_selected, paper_bits)

    @property
    def encoded_bytes(self) -> int:
        return _FIELDS.size + self.packed.nbytes

    def as_read(self) -> Self | None:
        if not self.packed.is_cpu:
            return None
        if self.sampled is not None or self.threshold == ALL_SELECTED:
            return self
        return replace(self, sampled=selected_bits(self.offset, self.count, self.key, self.threshold)[0])

    def payload(self) -> list[PayloadPart]:
        fields = _FIELDS.pack(self.offset, self.count, self.key, self.threshold - 1)
        return [fields, self.packed]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        if payload.nbytes < _FIELDS.size:
            raise WireError(f"signs: a payload of {payload.nbytes} bytes has no room for its fields")
        array = payload.numpy()
        offset, count, key, below = _FIELDS.unpack_from(array)  # type: ignore[arg-type]
        if count < 1 or offset + count > max_count:
            check_range(offset, count, max_count)
        if payload.nbytes - _FIELDS.size > (count + 7) // 8:
            raise WireError(f"signs: {payload.nbytes - _FIELDS.size} bytes of bits for {count} coordinates")
        sampled, n_selected = (
            (None, count) if below + 1 == ALL_SELECTED else selected_bits(offset, count, key, below + 1)
        )
        if payload.nbytes != _FIELDS.size + (n_selected + 7) // 8:
            check_length(payload, _FIELDS.size + (n_selected + 7) // 8, "signs")
        if n_selected % 8 and array[-1] >> n_selected % 8:
            check_padding(int(array[-1]), n_selected)
        packed = part_of(payload, _FIELDS.size, payload.nbytes)
        return cls(
            packed=packed,
            n_selected=n_selected,
            offset=offset,
            count=count,
            key=key,
            threshold=below + 1,
            dtype=dtype,
            sampled=sampled,
        )


@lru_cache(maxsize=16)
def _counts_between(bounds: tuple[int, ...], threshold: int) -> tuple[list[int], list[float]]:
    """Return the number of coordinates between neighboring bounds, and how many the papers expect to be selected."""
    counts = [stop - start for start, stop in pairwise(bounds)]
    return counts, [count * (threshold / ALL_SELECTED) for count in counts]


def bits_between(packed: Tensor, n_bits: int, low: int, high: int) -> Tensor:
    """Return the bits low .. high-1 of a packed stream of `n_bits`, as a view of it where whole bytes hold them."""
    if not low % 8 and (not high % 8 or high == n_bits):
        return part_of(packed, low // 8, (high + 7) // 8)
    return slice_bits(packed, low, high)


def flipped(packed: Tensor, n_bits: int) -> Tensor:
    """Return the bits with the first `n_bits` inverted; the padding stays 0."""
    turned = packed ^ 0xFF
    if n_bits % 8:
        turned[-1] &= (1 << n_bits % 8) - 1
    return turned
