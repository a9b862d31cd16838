"""The values of the coordinates that a keyed coin keeps; no positions are sent. FORMAT.md, section 3.11."""

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import ALL_KEPT, add_kept, all_finite, count_kept, kept_bits, put_kept
from laconic.kernels.api import keep_mask as mask_of
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.packet import Packet, Piece, check_length, check_range

_FIELDS = struct.Struct("<IIQI")


@dataclass(frozen=True, kw_only=True)
class KeptValues(Packet):
    """values: (kept,), the kept coordinates' values in ascending order; zero is meant elsewhere.

    Coordinate i is kept iff hash32(i, key) < threshold; threshold is in 1 .. 2**32.
    """

    kind: ClassVar[int] = 13
    name: ClassVar[str] = "kept values"
    values: Tensor
    count: int
    key: int
    threshold: int
    first: int = 0
    drawn: Tensor | None = field(default=None, compare=False, repr=False)  # what is kept, where a reader has worked
    # it out: (ceil(count/8),) uint8

    @property
    def mask(self) -> Tensor:
        """(count,) bool of what is kept."""
        return mask_of(self.first, self.count, self.key, self.threshold, self.values.device)

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.values.dtype

    @property
    def payload_bits(self) -> int:
        return VALUE_BITS[self.dtype] * self.values.numel()

    @property
    def paper_bits(self) -> float:
        return 32 * self.count * (self.threshold / ALL_KEPT)

    @property
    def named_overheads(self) -> dict[str, float]:
        kept = self.values.numel()
        wide = float((VALUE_BITS[self.dtype] - 32) * kept)
        drawn = 32 * kept - self.paper_bits
        return ({"mask drawn, not expected": drawn} if drawn else {}) | ({"value type": wide} if wide else {})

    @property
    def finite(self) -> bool:
        return all_finite(self.values)

    def dense(self) -> Tensor:
        whole = torch.empty(self.count, dtype=self.dtype, device=self.values.device)
        self.put_into(whole)
        return whole

    def put_into(self, out: Tensor) -> None:
        device = out.device
        put_kept(self.values.to(device), self.first, self.key, self.threshold, out, self._drawn_on(device))

    def add_to(self, total: Tensor) -> None:
        device = total.device
        add_kept(self.values.to(device), self.first, self.key, self.threshold, total, self._drawn_on(device))

    def _drawn_on(self, device: torch.device) -> Tensor | None:
        return None if self.drawn is None or device.type != "cpu" else self.drawn

    def part(self, first: int, stop: int) -> Self:
        low, high = (self._kept_before(at) for at in (first, stop))
        return type(self)(
            values=self.values[low:high], count=stop - first, key=self.key, threshold=self.threshold, first=first
        )

    def _kept_before(self, coordinate: int) -> int:
        """How many are kept before a coordinate. The cuts are remembered: they mostly come in order."""
        at = max(cut for cut in self._cuts if cut <= coordinate)
        if at < coordinate:
            more = count_kept(at, coordinate - at, self.key, self.threshold, self.values.device)
            self._cuts[coordinate] = self._cuts[at] + more
        return self._cuts[coordinate]

    @cached_property
    def _cuts(self) -> dict[int, int]:
        """How many are kept before some coordinates."""
        return {self.first: 0, self.first + self.count: self.values.numel()}

    def body(self) -> list[Piece]:
        return [_FIELDS.pack(self.first, self.count, self.key, self.threshold - 1), self.values.contiguous()]

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        if body.numel() < _FIELDS.size:
            raise WireError(f"kept values: a body of {body.numel()} bytes has no room for its fields")
        first, count, key, below = _FIELDS.unpack(bytes(body[: _FIELDS.size].numpy()))
        check_range(first, count, most)
        width = VALUE_BITS[dtype] // 8
        if body.numel() - _FIELDS.size > width * count:
            raise WireError(f"kept values: {body.numel() - _FIELDS.size} bytes of values for {count} coordinates")
        if below + 1 == ALL_KEPT:  # before a mask is made
            check_length(body, _FIELDS.size + width * count, "kept values")
        drawn, kept = (None, count) if below + 1 == ALL_KEPT else kept_bits(first, count, key, below + 1)
        check_length(body, _FIELDS.size + width * kept, "kept values")
        data = body[_FIELDS.size :]
        values = (data.clone() if data.storage_offset() % width else data).view(dtype)  # the view must be aligned
        packet = cls(values=values, count=count, key=key, threshold=below + 1, first=first, drawn=drawn)
        if not packet.finite:
            raise WireError("kept values: inf or NaN among the values")
        return packet
