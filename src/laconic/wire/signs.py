"""One bit for every coordinate that a keyed coin keeps; no positions are sent. FORMAT.md, section 3.2."""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.kernels import plain
from laconic.wire.head import WireError
from laconic.wire.packet import Packet, Piece, check_length, check_padding, check_range

_FIELDS = struct.Struct("<IIQI")
ALL_KEPT = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Signs(Packet):
    """negative: (kept,) bool, the kept coordinates' signs in ascending order; true stands for -1.

    Coordinate i is kept iff hash32(i, key) < threshold; threshold is in 1 .. 2**32.
    """

    kind: ClassVar[int] = 4
    name: ClassVar[str] = "signs"
    negative: Tensor
    first: int
    count: int
    key: int
    threshold: int
    dtype: torch.dtype

    @cached_property
    def mask(self) -> Tensor | None:
        """(count,) bool of what is kept; None when everything is."""
        if self.threshold == ALL_KEPT:
            return None
        return plain.keep_mask(self.first, self.count, self.key, self.threshold, self.negative.device)

    @property
    def payload_bits(self) -> int:
        return self.negative.numel()

    @property
    def paper_bits(self) -> float:
        return self.count * (self.threshold / ALL_KEPT)

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"mask drawn, not expected": self.payload_bits - self.paper_bits} if self.threshold < ALL_KEPT else {}

    def dense(self) -> Tensor:
        return plain.scatter_signs(self.negative, self.mask, self.dtype)

    def part(self, first: int, stop: int) -> Self:
        low, high = first - self.first, stop - self.first
        if self.mask is not None:
            low, high = int(self.mask[:low].sum()), int(self.mask[:high].sum())
        return type(self)(
            negative=self.negative[low:high], first=first, count=stop - first,
            key=self.key, threshold=self.threshold, dtype=self.dtype,
        )  # fmt: skip

    def body(self) -> list[Piece]:
        fields = _FIELDS.pack(self.first, self.count, self.key, self.threshold - 1)
        return [fields, plain.pack_bits(self.negative)]

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        if body.numel() < _FIELDS.size:
            raise WireError(f"signs: a body of {body.numel()} bytes has no room for its fields")
        first, count, key, below = _FIELDS.unpack(bytes(body[: _FIELDS.size].numpy()))
        check_range(first, count, most)
        if body.numel() - _FIELDS.size > (count + 7) // 8:
            raise WireError(f"signs: {body.numel() - _FIELDS.size} bytes of bits for {count} coordinates")
        mask = None if below + 1 == ALL_KEPT else plain.keep_mask(first, count, key, below + 1)
        kept = count if mask is None else int(mask.sum())
        check_length(body, _FIELDS.size + (kept + 7) // 8, "signs")
        if kept:
            check_padding(int(body[-1]), kept)
        negative = plain.unpack_bits(body[_FIELDS.size :], kept)
        packet = cls(negative=negative, first=first, count=count, key=key, threshold=below + 1, dtype=dtype)
        packet.__dict__["mask"] = mask  # the cached property: the mask is worked out already
        return packet
