"""One bit for every coordinate that a keyed coin keeps; no positions are sent. FORMAT.md, section 3.2."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from laconic.errors import WireError
from laconic.kernels.api import ALL_KEPT as ALL_KEPT
from laconic.kernels.api import add_signs, count_kept, count_ones, cut_bits, kept_bits, put_signs
from laconic.kernels.api import keep_mask as mask_of
from laconic.wire.packets.packet import Packet, Piece, Sizes, check_length, check_padding, check_range

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
    drawn: Tensor | None = field(default=None, compare=False, repr=False)  # what is kept, where a maker or a reader
    # has worked it out: (ceil(count/8),) uint8 on the CPU

    @property
    def mask(self) -> Tensor | None:
        """(count,) bool of what is kept; None when everything is."""
        if self.threshold == ALL_KEPT:
            return None
        return mask_of(self.first, self.count, self.key, self.threshold, self.packed.device)

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
        put_signs(self.packed.to(out.device), self.first, self.key, self.threshold, out, self._drawn_on(out.device))

    def add_to(self, total: Tensor) -> None:
        device = total.device
        add_signs(self.packed.to(device), self.first, self.key, self.threshold, total, self._drawn_on(device))

    def _drawn_on(self, device: torch.device) -> Tensor | None:
        return None if self.drawn is None or device.type != "cpu" else self.drawn

    def negated(self) -> Self:
        """The packet of the opposite signs."""
        return replace(self, packed=flipped(self.packed, self.kept))

    def part(self, first: int, stop: int) -> Self:
        low, high = self._kept_before(first), self._kept_before(stop)
        return type(self)(
            packed=cut_bits(self.packed, low, high), kept=high - low, first=first, count=stop - first,
            key=self.key, threshold=self.threshold, dtype=self.dtype,
            drawn=None if self.drawn is None else cut_bits(self.drawn, first - self.first, stop - self.first),
        )  # fmt: skip

    def _kept_before(self, coordinate: int) -> int:
        """How many are kept before a coordinate. The cuts are remembered: they mostly come in order."""
        at = max(cut for cut in self._cuts if cut <= coordinate)
        if at < coordinate and self.drawn is not None:
            more = count_ones(self.drawn, [at - self.first, coordinate - self.first])[0]
            self._cuts[coordinate] = self._cuts[at] + more
        elif at < coordinate:
            more = count_kept(at, coordinate - at, self.key, self.threshold, self.packed.device)
            self._cuts[coordinate] = self._cuts[at] + more
        return self._cuts[coordinate]

    @cached_property
    def _cuts(self) -> dict[int, int]:
        """How many are kept before some coordinates."""
        return {self.first: 0, self.first + self.count: self.kept}

    def sizes(self, cuts: Sequence[int]) -> Sizes:
        counts = [stop - first for first, stop in pairwise(cuts)]
        kept = counts if self.drawn is None else count_ones(self.drawn, [cut - self.first for cut in cuts])
        if self.drawn is None and self.threshold < ALL_KEPT:
            return super().sizes(cuts)
        share = self.threshold / ALL_KEPT
        fixed = _FIELDS.size
        return Sizes([fixed + (k + 7) // 8 for k in kept], kept, [count * share for count in counts])

    def as_read(self) -> Self | None:
        if self.packed.device.type != "cpu":
            return None
        if self.drawn is not None or self.threshold == ALL_KEPT:
            return self
        return replace(self, drawn=kept_bits(self.first, self.count, self.key, self.threshold)[0])

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
        drawn, kept = (None, count) if below + 1 == ALL_KEPT else kept_bits(first, count, key, below + 1)
        check_length(body, _FIELDS.size + (kept + 7) // 8, "signs")
        if kept:
            check_padding(int(body[-1]), kept)
        packed = body[_FIELDS.size :]
        return cls(
            packed=packed, kept=kept, first=first, count=count, key=key, threshold=below + 1, dtype=dtype, drawn=drawn
        )


def flipped(packed: Tensor, n_bits: int) -> Tensor:
    """The opposite of each of the first `n_bits` bits; the padding stays 0."""
    turned = packed ^ 0xFF
    if n_bits % 8:
        turned[-1] &= (1 << n_bits % 8) - 1
    return turned
