"""One bit an element, for all elements or for those that a keyed Bernoulli draw selects.

sgn(0) is +1 where a bit is sent, and so is a tie of votes; `zeros_at_random` makes them +1 or -1 by a keyed draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from laconic.compressors.compressor import Compressor, as_values
from laconic.contract import Accept, ModelSpec
from laconic.hyperparameters import hyperparameter
from laconic.kernels.api import ALL_SELECTED, error_feedback_step, error_feedback_total, pack_signs, selected_bits
from laconic.kernels.api import majority as packed_majority
from laconic.kernels.api import momentum_signs as packed_momentum_signs
from laconic.wire import Packet, Signs


def threshold_of(keep: float) -> int:
    """Return the hash threshold that selects a coordinate with probability `keep`, at least 1.

    Args:
        keep: In (0, 1].

    Raises:
        ValueError: `keep` is outside (0, 1].
    """
    if not 0 < keep <= 1:
        raise ValueError(f"signs: keep={keep!r} must be in (0, 1]; 1 sends every sign")
    return max(1, round(keep * 2**32))


def signs(vector: Tensor, *, keep: float = 1.0, key: int = 0, offset: int = 0) -> Signs:
    """Return the signs of the elements that a keyed Bernoulli draw selects.

    Both ends derive the mask from `key`, so no positions are sent. Phuong, Phong, Fukushima 2023: sign_beta.

    Args:
        vector: (d,) of any float type.
        keep: Probability that an element is selected, in (0, 1].
        key: Key of the mask, 0 .. 2**64 - 1.
        offset: Number of the vector's first coordinate in the full model.

    Raises:
        ValueError: `keep` is outside (0, 1].
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


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float, offset: int = 0) -> Signs:
    """Return the signs of mu momentum + (1 - mu) gradient, which overwrites `gradient`.

    Args:
        gradient: (d,) float32 or float64, overwritten.
        momentum: (d,) of the same type.
        mu: The momentum factor.
        offset: Number of the vectors' first coordinate in the full model.
    """
    packed = packed_momentum_signs(gradient, momentum, mu=mu)
    d = gradient.shape[0]
    return Signs(
        packed=packed, n_selected=d, offset=offset, count=d, key=0, threshold=ALL_SELECTED, dtype=gradient.dtype
    )


def majority(packets: Sequence[Packet], *, offset: int, count: int, dtype: torch.dtype) -> Signs:
    """Return the majority of the packets' signs for each coordinate; +1 for a tie, or without packets.

    Args:
        packets: Signs of all elements, each about the coordinates offset .. offset+count-1.
        offset: Number of the first coordinate.
        count: Number of coordinates.
        dtype: Type of the dense form.

    Raises:
        TypeError: A packet does not hold the signs of all elements.
    """
    packed: list[Tensor] = []
    for packet in packets:
        if type(packet) is not Signs or packet.threshold != ALL_SELECTED:
            raise TypeError(f"a majority is taken of the signs of all elements, not of a packet of {packet.name}")
        packed += (packet.packed,)
    made = packed_majority(packed, count) if packed else torch.zeros((count + 7) // 8, dtype=torch.uint8)
    return Signs(packed=made, n_selected=count, offset=offset, count=count, key=0, threshold=ALL_SELECTED, dtype=dtype)


def zeros_at_random(made: Signs, is_zero: Tensor, key: int) -> Signs:
    """Return a packet in which elements that were 0, and so are +1, are +1 or -1 with equal probability.

    Args:
        made: The signs of all elements.
        is_zero: (count,) bool, which elements were 0.
        key: Key of the draw, 0 .. 2**64 - 1; it is of each coordinate's own, however the vector is split.
    """
    zeros, _ = pack_signs(is_zero.to(torch.int8).neg_(), made.offset, 0, ALL_SELECTED)
    random, _ = selected_bits(made.offset, made.count, key, 1 << 31, made.packed.device)
    return replace(made, packed=made.packed | (zeros & random))


def error_feedback_signs(
    gradient: Sequence[Tensor], momentum: Tensor, residual: Tensor, new_momentum: Tensor, new_residual: Tensor,
    *, mu: float, decay: float, c: float, keep: float, key: int, offset: int = 0,
) -> tuple[Signs, bool]:  # fmt: skip
    """Take a worker's step with momentum, error feedback and signs, in one pass over the vectors.

    new_momentum = mu momentum + gradient; corrected = (mu new_momentum + gradient) + decay residual;
    new_residual = corrected - c sign(corrected) where selected, corrected elsewhere.

    Args:
        gradient: The gradient tensors, d elements in all, in the order of the vectors.
        momentum: (d,) float32 or float64, as all vectors.
        residual: (d,), the residual before the step.
        new_momentum: (d,), overwritten.
        new_residual: (d,), overwritten.
        mu: The momentum factor.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        keep: Probability that an element is selected, in [0, 1]; 0 sends nothing.
        key: Key of the mask, 0 .. 2**64 - 1.
        offset: Number of the vectors' first coordinate in the full model.

    Returns:
        The signs of the selected elements of `corrected`, and whether all of `corrected` is finite.
    """
    threshold = threshold_of(keep) if keep else 0
    packed, n_selected, sampled, is_finite = error_feedback_step(
        gradient, momentum, residual, new_momentum, new_residual,
        mu=mu, decay=decay, c=c, offset=offset, key=key, threshold=threshold,
    )  # fmt: skip
    sent = Signs(
        packed=packed, n_selected=n_selected, offset=offset, count=residual.numel(), key=key, threshold=threshold,
        dtype=residual.dtype,
        sampled=sampled,
    )  # fmt: skip
    return sent, is_finite


def server_error_feedback_signs(
    total: Tensor, residual: Tensor, new_residual: Tensor,
    *, divisor: int, scale: float, decay: float, c: float, keep: float, key: int, offset: int,
) -> Signs:  # fmt: skip
    """Take the server's step of the same methods.

    corrected = decay residual + scale (total / divisor); new_residual = corrected - c sign(corrected) where selected,
    corrected elsewhere.

    Args:
        total: (count,), the sum over workers, of the residual's type, or int8 votes.
        residual: (count,) float32 or float64, the residual before the step.
        new_residual: (count,), overwritten.
        divisor: Divisor of the total.
        scale: Factor of the mean.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        keep: Probability that an element is selected, in [0, 1]; 0 sends nothing.
        key: Key of the mask, 0 .. 2**64 - 1.
        offset: Number of the first coordinate in the full model.

    Returns:
        The signs of the selected elements of `corrected`.
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
    """sgn(v) at the selected coordinates, 0 elsewhere. It has no scale, so it promises no contraction.

    ||c sgn(p) - p||^2 is below ||p||^2 only while 0 < c < 2 mean|p| over the selected coordinates.
    """

    name: ClassVar[str] = "sign"
    counts_zeros: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    keep: float = hyperparameter(1.0, "share of coordinates whose sign is sent", within="(0, 1]")

    def __call__(self, vector: Tensor, *, spec: ModelSpec | None = None, key: int = 0, offset: int = 0) -> Signs:
        return signs(vector, keep=self.keep, key=key, offset=offset)

    def accept(self, spec: ModelSpec, stream: str = "compress") -> Accept:
        return Accept(Signs, threshold=threshold_of(self.keep), stream=stream)

    def delta(self, vector: Tensor, spec: ModelSpec | None = None) -> float | None:
        return None

    def paper_bits(self, spec: ModelSpec) -> float:
        return self.keep * spec.d
