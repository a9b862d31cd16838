"""One bit for every coordinate that a keyed Bernoulli draw selects, and one scale for all. FORMAT.md, section 3.12."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import absolute_maximum
from laconic.wire.head import VALUE_BITS
from laconic.wire.packets.packet import Packet, PayloadPart, Sizes, scaled_values
from laconic.wire.packets.signs import Signs


@dataclass(frozen=True, kw_only=True)
class SelectedSigns(Packet):
    """The signs of the selected coordinates, times one scale. The dense form is zero elsewhere."""

    kind: ClassVar[int] = 14
    name: ClassVar[str] = "scaled kept signs"
    shows_magnitudes: ClassVar[bool] = False
    signs: Signs
    """The signs, with their mask."""
    scale: Tensor
    """(1,) of type `dtype`, not negative; 0 where no coordinate is selected."""

    @property
    def offset(self) -> int:  # type: ignore[override]
        return self.signs.offset

    @property
    def count(self) -> int:  # type: ignore[override]
        return self.signs.count

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        return self.scale.dtype

    @property
    def key(self) -> int:
        """Key of the mask, 0 .. 2**64 - 1."""
        return self.signs.key

    @property
    def threshold(self) -> int:
        """Threshold of the mask, 1 .. 2**32; 2**32 selects all coordinates."""
        return self.signs.threshold

    @property
    def payload_bits(self) -> int:
        return self.signs.payload_bits + VALUE_BITS[self.dtype]

    @property
    def paper_bits(self) -> float:
        return self.signs.paper_bits + 32

    @property
    def named_overheads(self) -> dict[str, float]:
        wide = float(VALUE_BITS[self.dtype] - 32)
        return self.signs.named_overheads | ({"value type": wide} if wide else {})

    @property
    def minimum_bits(self) -> float:
        return float(self.payload_bits)

    @cached_property
    def absolute_maximum(self) -> float:
        return absolute_maximum(self.scale)

    def dense(self) -> Tensor:
        return self.signs.dense().mul_(self.scale)

    def put_into(self, out: Tensor) -> None:
        if out.dtype != self.dtype or out.device != self.scale.device:
            super().put_into(out)
            return
        self.signs.put_into(out)
        out.mul_(self.scale)

    def scaled(self, factor: float) -> Self:
        return replace(self, signs=self.signs.scaled(factor), scale=scaled_values(self.scale, abs(factor)))

    def part(self, start: int, stop: int) -> Self:
        signs = self.signs.part(start, stop)
        return type(self)(signs=signs, scale=self.scale if signs.n_selected else torch.zeros_like(self.scale))

    def sizes(self, bounds: Sequence[int]) -> Sizes:
        of_signs, width = self.signs.sizes(bounds), VALUE_BITS[self.dtype]
        return Sizes(
            [n_bytes + width // 8 for n_bytes in of_signs.encoded_bytes],
            [n_bits + width for n_bits in of_signs.payload_bits],
            [n_bits + 32 for n_bits in of_signs.paper_bits],
        )

    def as_read(self) -> Self | None:
        signs = self.signs.as_read()
        if signs is None or not bool(self.scale >= 0):  # a reader refuses such a scale
            return None
        return replace(self, signs=signs, scale=self.scale.clone())  # the sender may overwrite its own

    def payload(self) -> list[PayloadPart]:
        return [*self.signs.payload(), self.scale.contiguous()]

    @classmethod
    def read(cls, payload: Tensor, dtype: torch.dtype, max_count: int) -> Self:
        width = VALUE_BITS[dtype] // 8
        if payload.numel() < width:
            raise WireError(f"scaled kept signs: a payload of {payload.numel()} bytes has no room for its scale")
        signs = Signs.read(payload[:-width], dtype, max_count)
        scale = payload[-width:].clone().view(dtype)  # clone: the view must be aligned
        value = float(scale)
        if not 0 <= value < float("inf"):
            raise WireError("scaled kept signs: the scale is negative, inf or NaN")
        if value and not signs.n_selected:
            raise WireError("scaled kept signs: a scale of no sign must be 0")
        return cls(signs=signs, scale=scale)
