"""One bit an entry, for all entries or for those that a keyed coin keeps.

sgn(0) is +1 wherever a bit is sent (a vote's tie is +1 too).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.knobs import knob
from laconic.wire import Signs


def threshold_of(keep: float) -> int:
    """The hash threshold that keeps a coordinate with probability `keep` in (0, 1]; at least one pattern is kept.

    Raises ValueError for any other `keep`.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"signs: keep={keep!r} must be in (0, 1]; 1 sends every sign")
    return max(1, round(keep * 2**32))


def signs(vector: Tensor, *, keep: float = 1.0, key: int = 0, first: int = 0) -> Signs:
    """The signs of the entries of `vector` (d,) that the keyed coin keeps with probability `keep`.

    Both ends derive the mask from `key`, so no positions are sent. Phuong, Phong, Fukushima 2023: sign_beta.
    """
    values = as_values(vector)
    packet = Signs(
        negative=values < 0, first=first, count=values.numel(),
        key=key, threshold=threshold_of(keep), dtype=values.dtype,
    )  # fmt: skip
    if packet.mask is None:
        return packet
    kept = Signs(
        negative=packet.negative[packet.mask], first=first, count=packet.count,
        key=key, threshold=packet.threshold, dtype=packet.dtype,
    )  # fmt: skip
    kept.__dict__["mask"] = packet.mask  # the cached property: worked out once
    return kept


@dataclass(frozen=True, kw_only=True)
class Sign(Compressor):
    """sgn(v) on the kept coordinates, 0 elsewhere: no scale, hence no promise of contraction.

    ||c sgn(p) - p||^2 shrinks ||p||^2 only while 0 < c < 2 mean|p| over what is kept.
    """

    name: ClassVar[str] = "sign"
    separable: ClassVar[bool] = True

    keep: float = knob(1.0, "share of coordinates whose sign is sent", within="(0, 1]")

    def __call__(self, vector: Tensor, *, layers: Sequence[int] = (), key: int = 0, first: int = 0) -> Signs:
        return signs(vector, keep=self.keep, key=key, first=first)

    def delta(self, vector: Tensor, layers: Sequence[int] = ()) -> float | None:
        return None

    def paper_bits(self, d: int, layers: Sequence[int] = ()) -> float:
        return self.keep * d
