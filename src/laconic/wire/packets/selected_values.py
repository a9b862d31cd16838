"""The values of the coordinates that a keyed Bernoulli draw selects; no positions are sent. FORMAT.md, section 3.11."""

import struct
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import (
    ALL_SELECTED,
    absolute_maximum,
    add_selected,
    count_selected,
    put_selected,
    selected_bits,
)
from laconic.kernels.api import keep_mask as mask_of
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.packet import Packet, PayloadPart, check_length, check_range, scaled_values

_FIELDS = struct.Struct("<IIQI")


@dataclass(frozen=True, kw_only=True)
class SelectedValues(Packet):
    """The values of the selected coordinates. The dense form is zero elsewhere.

    Coordinate i is selected iff hash32(i, key) < threshold.
    """

    kind: ClassVar[int] = 13
    name: ClassVar[str] = "kept values"
    shows_magnitudes: ClassVar[bool] = False
    values: Tensor
    """(selected,) of type `dtype`, in ascending order of the coordinates."""
    count: int
    """Number of coordinates."""
    key: int
    """Key of the mask, 0 .. 2**64 - 1."""
    threshold: int
    """Threshold of the mask, 1 .. 2**32; 2**32 selects all coordinates."""
    offset: int = 0
    """Number of the first coordinate."""
    sampled: Tensor | None = field(default=None, compare=False, repr=False)
    """The mask as bits, (ceil(count / 8),) uint8, where a reader has already sampled it."""

    @property
    def mask(self) -> Tensor:
        """Which coordinates are selected, (count,) bool."""
        return mask_of(self.offset, self.count, self.key, self.threshold, self.values.device)

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.values.dtype

    @property
    def payload_bits(self) -> int:
        return VALUE_BITS[self.dtype] * self.values.numel()

    @property
    def paper_bits(self) -> float:
        return 32 * self.count * (self.threshold / ALL_SELECTED)

    @property
    def named_overheads(self) -> dict[str, float]:
        n_selected = self.values.numel()
        wide = float((VALUE_BITS[self.dtype] - 32) * n_selected)
        sampled = 32 * n_selected - self.paper_bits
        return ({"mask drawn, not expected": sampled} if sampled else {}) | ({"value type": wide} if wide else {})

    @cached_property
    def absolute_maximum(self) -> float:
        return absolute_maximum(self.values)

    def dense(self) -> Tensor:
        full = torch.empty(self.count, dtype=self.dtype, device=self.values.device)
        self.put_into(full)
        return full

    def put_into(self, out: Tensor) -> None:
        device = out.device
        put_selected(self.values.to(device), self.offset, self.key, self.threshold, out, self._sampled_on(device))

    def add_to(self, total: Tensor) -> None:
        device = total.device
        add_selected(self.values.to(device), self.offset, self.key, self.threshold, total, self._sampled_on(device))

    def unsent_of(self, vector: Tensor) -> Tensor:
        values, sampled = self.values.to(vector.device), self._sampled_on(vector.device)
        add_selected(values, self.offset, self.key, self.threshold, vector, sampled, subtract=True)
        return vector

    def _sampled_on(self, device: torch.device) -> Tensor | None:
        return None if self.sampled is None or device.type != "cpu" else self.sampled

    def scaled(self, factor: float) -> Self:
        return replace(self, values=scaled_values(self.values, factor))

    def part(self, start: int, stop: int) -> Self:
        low, high = (self._selected_before(at) for at in (start, stop))
        return type(self)(
            values=self.values[low:high], count=stop - start, key=self.key, threshold=self.threshold, offset=start
        )

    def _selected_before(self, coordinate: int) -> int:
        """Return how many coordinates before this one are selected, from the nearest earlier result."""
        at = max(known for known in self._counts_before if known <= coordinate)
        if at < coordinate:
            more = count_selected(at, coordinate - at, self.key, self.threshold, self.values.device)
            self._counts_before[coordinate] = self._counts_before[at] + more
        return self._counts_before[coordinate]

    @cached_property
    def _counts_before(self) -> dict[int, int]:
        """How many coordinates are selected before those that were asked for so far."""
        return {self.offset: 0, self.offset + self.count: self.values.numel()}

    def payload(self) -> list[PayloadPart]:
        return [_FIELDS.pack(self.offset, self.count, self.key, self.threshold - 1), self.values.contiguous()]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        if payload.numel() < _FIELDS.size:
            raise WireError(f"kept values: a payload of {payload.numel()} bytes has no room for its fields")
        offset, count, key, below = _FIELDS.unpack(bytes(payload[: _FIELDS.size].numpy()))
        check_range(offset, count, max_count)
        width = VALUE_BITS[dtype] // 8
        if payload.numel() - _FIELDS.size > width * count:
            raise WireError(f"kept values: {payload.numel() - _FIELDS.size} bytes of values for {count} coordinates")
        if below + 1 == ALL_SELECTED:  # before a mask is made
            check_length(payload, _FIELDS.size + width * count, "kept values")
        sampled, n_selected = (
            (None, count) if below + 1 == ALL_SELECTED else selected_bits(offset, count, key, below + 1)
        )
        check_length(payload, _FIELDS.size + width * n_selected, "kept values")
        data = payload[_FIELDS.size :]
        values = (data.clone() if data.storage_offset() % width else data).view(dtype)  # the view must be aligned
        packet = cls(values=values, count=count, key=key, threshold=below + 1, offset=offset, sampled=sampled)
        if not packet.finite:
            raise WireError("kept values: inf or NaN among the values")
        return packet
