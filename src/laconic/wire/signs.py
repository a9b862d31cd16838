"""One bit for every coordinate that a keyed coin keeps; no positions are sent. FORMAT.md, section 3.2."""

import struct
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.kernels import add_signs, count_kept, cut_bits, plain, put_signs
from laconic.kernels.plain_signs import ALL_KEPT as ALL_KEPT
from laconic.wire.head import WireError
from laconic.wire.packet import Packet, Piece, check_length, check_padding, check_range

_FIELDS = struct.Struct("<IIQI")


@dataclass(frozen=True, kw_only=True)
class Signs(Packet):
    """packed: (ceil(kept/8),) uint8, the kept coordinates' signs in ascending order, lowest bit first; 1 stands for -1.

    Coordinate i is kept iff hash32(i, key) < threshold; threshold is in 1 .. 2**32.
    """

    kind: ClassVar[int] = 4
    name: ClassVar[str] = "signs"
    packed: Tensor
    kept: int
    first: int
    count: int
    key: int
    threshold: int
    dtype: torch.dtype

    @property
    def mask(self) -> Tensor | None:
        """(count,) bool of what is kept; None when everything is."""
        if self.threshold == ALL_KEPT:
            return None
        return plain.keep_mask(self.first, self.count, self.key, self.threshold, self.packed.device)

    @property
    def payload_bits(self) -> int:
        return self.kept

    @property
    def paper_bits(self) -> float:
        return self.count * (self.threshold / ALL_KEPT)

    @property
    def named_overheads(self) -> dict[str, float]:
        return {"mask drawn, not expected": self.payload_bits - self.paper_bits} if self.threshold < ALL_KEPT else {}

    def dense(self) -> Tensor:
        out = torch.empty(self.count, dtype=self.dtype, device=self.packed.device)
        self.put_into(out)
        return out

    def put_into(self, out: Tensor) -> None:
        put_signs(self.packed.to(out.device), self.first, self.key, self.threshold, out)

    def add_to(self, total: Tensor) -> None:
        add_signs(self.packed.to(total.device), self.first, self.key, self.threshold, total)

    def negated(self) -> Self:
        """The packet of the opposite signs."""
        return replace(self, packed=flipped(self.packed, self.kept))

    def part(self, first: int, stop: int) -> Self:
        low = self._kept_before(first)
        high = low + count_kept(first, stop - first, self.key, self.threshold, self.packed.device)
        return type(self)(
            packed=cut_bits(self.packed, low, high), kept=high - low, first=first, count=stop - first,
            key=self.key, threshold=self.threshold, dtype=self.dtype,
        )  # fmt: skip

    def _kept_before(self, coordinate: int) -> int:
        return count_kept(self.first, coordinate - self.first, self.key, self.threshold, self.packed.device)

    def body(self) -> list[Piece]:
        fields = _FIELDS.pack(self.first, self.count, self.key, self.threshold - 1)
        return [fields, self.packed]

    @classmethod
    def read(cls, body: Tensor, dtype: torch.dtype, most: int) -> Self:
        if body.numel() < _FIELDS.size:
            raise WireError(f"signs: a body of {body.numel()} bytes has no room for its fields")
        first, count, key, below = _FIELDS.unpack(bytes(body[: _FIELDS.size].numpy()))
        check_range(first, count, most)
        if body.numel() - _FIELDS.size > (count + 7) // 8:
            raise WireError(f"signs: {body.numel() - _FIELDS.size} bytes of bits for {count} coordinates")
        kept = count_kept(first, count, key, below + 1)
        check_length(body, _FIELDS.size + (kept + 7) // 8, "signs")
        if kept:
            check_padding(int(body[-1]), kept)
        packed = body[_FIELDS.size :]
        return cls(packed=packed, kept=kept, first=first, count=count, key=key, threshold=below + 1, dtype=dtype)


def flipped(packed: Tensor, n_bits: int) -> Tensor:
    """The opposite of each of the first `n_bits` bits; the padding stays 0."""
    turned = packed ^ 0xFF
    if n_bits % 8:
        turned[-1] &= (1 << n_bits % 8) - 1
    return turned
