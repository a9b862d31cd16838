"""One bit an element, for all elements or for those that a keyed Bernoulli draw selects.

sgn(0) is +1 wherever a bit is sent (a vote's tie is +1 too).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import ALL_SELECTED, error_feedback_step, error_feedback_total, pack_signs
from laconic.kernels.api import majority as packed_majority
from laconic.kernels.api import momentum_signs as packed_momentum_signs
from laconic.wire import Packet, Signs


def threshold_of(keep: float) -> int:
    """The hash threshold that keeps a coordinate with probability `keep` in (0, 1]; at least one pattern is kept.

    Raises ValueError for any other `keep`.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"signs: keep={keep!r} must be in (0, 1]; 1 sends every sign")
    return max(1, round(keep * 2**32))


def signs(vector: Tensor, *, keep: float = 1.0, key: int = 0, offset: int = 0) -> Signs:
    """The signs of the elements of `vector` (d,) that a keyed Bernoulli draw selects with probability `keep`.

    Both ends derive the mask from `key`, so no positions are sent. Phuong, Phong, Fukushima 2023: sign_beta.
    """
    values = as_values(vector)
    threshold = threshold_of(keep)
    packed, n_selected = pack_signs(values, offset, key, threshold)
    return Signs(
        packed=packed,
        n_selected=n_selected,
        offset=offset,
        count=values.numel(),
        key=key,
        threshold=threshold,
        dtype=values.dtype,
    )


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Signs:
    """The signs of new = mu momentum + (1 - mu) gradient, which is written over `gradient` (d,)."""
    packed = packed_momentum_signs(gradient, momentum, mu=mu)
    d = gradient.numel()
    return Signs(packed=packed, n_selected=d, offset=0, count=d, key=0, threshold=ALL_SELECTED, dtype=gradient.dtype)


def majority(packets: Sequence[Packet], *, offset: int, count: int, dtype: torch.dtype) -> Signs:
    """The sign that most packets give to each of the coordinates first .. first+count-1; +1 for ties and no packets.

    Raises TypeError for packets that are not of the signs of all elements.
    """
    packed = []
    for packet in packets:
        if not isinstance(packet, Signs) or packet.threshold != ALL_SELECTED:
            raise TypeError(f"a majority is taken of the signs of all elements, not of a packet of {packet.name}")
        packed.append(packet.packed)
    made = packed_majority(packed, count) if packed else torch.zeros((count + 7) // 8, dtype=torch.uint8)
    return Signs(packed=made, n_selected=count, offset=offset, count=count, key=0, threshold=ALL_SELECTED, dtype=dtype)


def error_feedback_signs(
    gradient: Sequence[Tensor], momentum: Tensor, residual: Tensor, new_momentum: Tensor, new_residual: Tensor,
    *, mu: float, decay: float, c: float, keep: float, key: int,
) -> tuple[Signs, bool]:  # fmt: skip
    """Momentum, error feedback and signs in one pass over the vectors (d,). `keep` may be 0, which sends nothing.

    new_momentum = mu momentum + gradient; corrected = (mu new_momentum + gradient) + decay residual;
    new_residual = corrected - c sign(corrected) where selected, corrected elsewhere. gradient: in pieces, one behind
    the other. Returns the signs of `corrected`, and whether all of it is finite.
    """
    threshold = threshold_of(keep) if keep else 0
    packed, n_selected, sampled, is_finite = error_feedback_step(
        gradient, momentum, residual, new_momentum, new_residual,
        mu=mu, decay=decay, c=c, offset=0, key=key, threshold=threshold,
    )  # fmt: skip
    sent = Signs(
        packed=packed, n_selected=n_selected, offset=0, count=residual.numel(), key=key, threshold=threshold,
        dtype=residual.dtype,
        sampled=sampled,
    )  # fmt: skip
    return sent, is_finite


def server_error_feedback_signs(
    total: Tensor, residual: Tensor, new_residual: Tensor,
    *, divisor: int, scale: float, decay: float, c: float, keep: float, key: int, offset: int,
) -> Signs:  # fmt: skip
    """The server's step of the same methods: corrected = decay residual + scale (total / divisor), and so on.

    total: (count,), which may be int8 votes; `offset` is the number of its first coordinate in the whole model.
    """
    threshold = threshold_of(keep) if keep else 0
    packed, n_selected, sampled = error_feedback_total(
        total, residual, new_residual,
        divisor=divisor, scale=scale, decay=decay, c=c, offset=offset, key=key, threshold=threshold,
    )  # fmt: skip
    return Signs(
        packed=packed, n_selected=n_selected, offset=offset, count=residual.numel(), key=key, threshold=threshold,
        dtype=residual.dtype,
        sampled=sampled,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sign(Compressor):
    """sgn(v) on the kept coordinates, 0 elsewhere: no scale, hence no promise of contraction.

    ||c sgn(p) - p||^2 shrinks ||p||^2 only while 0 < c < 2 mean|p| over what is kept.
    """

    name: ClassVar[str] = "sign"
    separable: ClassVar[bool] = True

    keep: float = hyperparameter(1.0, "share of coordinates whose sign is sent", within="(0, 1]")

    def __call__(self, vector: Tensor, *, layers: Sequence[int] = (), key: int = 0, offset: int = 0) -> Signs:
        return signs(vector, keep=self.keep, key=key, offset=offset)

    def delta(self, vector: Tensor, layers: Sequence[int] = ()) -> float | None:
        return None

    def paper_bits(self, d: int, layers: Sequence[int] = ()) -> float:
        return self.keep * d
