"""One sign bit for each element that a keyed mask selects: the reference, in torch.

In all functions:
- `offset` is the number of a vector's first coordinate.
- Coordinate i is selected iff hash32(i, key) < threshold, a Bernoulli draw that both ends of a link can repeat. The
  threshold is in 0 .. 2**32: 0 selects nothing, 2**32 everything, without hashing.
- `packed`, (ceil(k/8),) uint8, holds the signs of the k selected elements in ascending order, lowest bit first. A set
  bit means value < 0, so both zeros are +1. The unused bits of the last byte are 0.
- Scalars are rounded to the vector's type, and no operations are fused or reordered.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.checks import stream as check_stream
from laconic.kernels.reference import hashing as reference_hashing
from laconic.kernels.reference.finite import all_finite
from laconic.kernels.reference.flatten import gather

ALL_SELECTED = 1 << 32


def count_selected(offset: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """Return how many of the coordinates offset .. offset+count-1 are selected.

    Args:
        offset: Number of the first coordinate.
        count: Number of coordinates.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.
        device: Where to count.
    """
    if threshold in (0, ALL_SELECTED):
        return count if threshold else 0
    return int(reference_hashing.keep_mask(offset, count, key, threshold, device).sum())


def selected_bits(
    offset: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """Return which of those coordinates are selected, as bits, and how many.

    `put_signs` and `add_signs` take the bits and need not sample the mask again.

    Args:
        offset: Number of the first coordinate.
        count: Number of coordinates.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.
        device: Where the result is made.

    Returns:
        (ceil(count/8),) uint8, lowest bit first, and the number of bits set.
    """
    mask = _mask(offset, torch.empty(count, dtype=torch.bool, device=device), key, threshold)
    mask = torch.ones(count, dtype=torch.bool, device=device) if mask is None else mask
    return reference_hashing.pack_bits(mask), int(mask.sum())


def pack_signs(values: Tensor, offset: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """Pack the signs of the selected elements.

    Args:
        values: (count,) of any float type, or int8.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.

    Returns:
        The packed signs, and how many elements were selected.
    """
    negative = values < 0
    mask = None if threshold == ALL_SELECTED else _mask(offset, negative, key, threshold)
    selected = negative if mask is None else negative[mask]
    return reference_hashing.pack_bits(selected), selected.numel()


def put_signs(
    packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """Write -1 or +1 at the selected elements, and 0 elsewhere.

    Args:
        packed: The signs of the selected elements; another number of bytes raises ValueError, here and below.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.
        out: (count,) float32 or float64, contiguous, overwritten.
        sampled: The mask as bits, from `selected_bits`; None to sample it again.
    """
    _put("put_signs", packed, offset, key, threshold, out, sampled)


def _put(
    name: str, packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None
) -> None:  # fmt: skip
    mask = None
    if sampled is not None:
        mask = reference_hashing.unpack_bits(sampled, out.numel())
    elif threshold != ALL_SELECTED:
        mask = _mask(offset, out, key, threshold)
    n_selected = out.numel() if mask is None else int(mask.sum())
    check_stream(name, packed, n_selected)
    if mask is None:
        out.copy_(reference_hashing.unpack_bits(packed, n_selected)).mul_(-2).add_(1)
        return
    out.copy_(reference_hashing.scatter_signs(reference_hashing.unpack_bits(packed, n_selected), mask, out.dtype))


def add_signs(
    packed: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None
) -> None:
    """Add -1 or +1 at the selected elements, in place.

    Args:
        packed: The signs of the selected elements.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.
        total: (count,) float32, float64 or int8, contiguous. int8 wraps beyond 127 packets.
        sampled: The mask as bits, from `selected_bits`; None to sample it again.
    """
    signs = torch.empty_like(total)
    _put("add_signs", packed, offset, key, threshold, signs, sampled)
    total.add_(signs)


def slice_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """Return the bits low .. high-1 of a packed stream as a packed stream of their own: (ceil((high-low)/8),) uint8."""
    start = low // 8
    bits = (
        reference_hashing.unpack_bits(packed[start : (high + 7) // 8], high - 8 * start)
        if high > low
        else packed[:0].bool()
    )
    return reference_hashing.pack_bits(bits[low - 8 * start :])


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """Return the sign that most of n voters gave to each element; +1 for a tie.

    Args:
        packed: n tensors, n >= 1, each the signs of all elements.
        count: Number of elements.

    Returns:
        (ceil(count/8),) uint8.
    """
    negatives = sum(reference_hashing.unpack_bits(voter, count).to(torch.int32) for voter in packed)
    assert isinstance(negatives, Tensor)
    return reference_hashing.pack_bits(2 * negatives > len(packed))


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """Write mu momentum + (1 - mu) gradient over the gradient, and pack the signs of all its elements.

    Args:
        gradient: (d,) float32 or float64, contiguous, overwritten.
        momentum: (d,), contiguous.
        mu: The momentum factor.

    Returns:
        (ceil(d/8),) uint8.
    """
    gradient.copy_(mu * momentum + (1 - mu) * gradient)
    return pack_signs(gradient, 0, 0, ALL_SELECTED)[0]


def error_feedback_step(
    tensors: Sequence[Tensor],
    momentum: Tensor,
    residual: Tensor,
    new_momentum: Tensor,
    new_residual: Tensor,
    *,
    mu: float,
    decay: float,
    c: float,
    offset: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:
    """A worker's step with Nesterov momentum and error feedback, in one pass: signs are sent on a keyed mask.

        new_momentum = mu momentum + gradient
        corrected = (mu new_momentum + gradient) + decay residual
        new_residual = corrected - c sign(corrected) where selected, corrected elsewhere

    All vectors are (d,) of one type, float32 or float64; a new one may be the old one. Threshold 0 sends nothing.

    Args:
        tensors: The gradient as tensors, one behind the other, of any float type.
        momentum: Momentum before the step.
        residual: Residual before the step.
        new_momentum: Contiguous, overwritten.
        new_residual: Contiguous, overwritten.
        mu: The momentum factor.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.

    Returns:
        The packed signs of the selected elements of `corrected`, how many are selected, which (as from `selected_bits`;
        None where that was not written down), and whether no element of `corrected` is inf or NaN.
    """  # fmt: skip
    gradient = torch.empty_like(new_momentum)
    gather(tensors, gradient)
    new = mu * momentum + gradient
    corrected = mu * new + gradient + decay * residual
    new_momentum.copy_(new)
    packed, n_selected = _error_feedback(corrected, new_residual, c, offset, key, threshold)
    return packed, n_selected, None, all_finite(corrected)


def error_feedback_total(
    total: Tensor,
    residual: Tensor,
    new_residual: Tensor,
    *,
    divisor: int,
    scale: float,
    decay: float,
    c: float,
    offset: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int, Tensor | None]:
    """The server's step of the same methods, in one pass.

        corrected = decay residual + scale (total / divisor)
        new_residual = corrected - c sign(corrected) where selected, corrected elsewhere

    Args:
        total: (count,) of the residual's type, or int8 sums of signs.
        residual: (count,) float32 or float64, residual before the step.
        new_residual: (count,), contiguous, overwritten; may be the old one.
        divisor: The divisor of the total.
        scale: Factor of the mean.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 0 .. 2**32.

    Returns:
        The packed signs of the selected elements of `corrected`, how many are selected, and which, or None.
    """  # fmt: skip
    corrected = decay * residual + scale * (total.to(residual.dtype) / divisor)
    return *_error_feedback(corrected, new_residual, c, offset, key, threshold), None


def _error_feedback(
    corrected: Tensor, new_residual: Tensor, c: float, offset: int, key: int, threshold: int
) -> tuple[Tensor, int]:
    """Pack the signs of the selected elements, and write what they leave over into the new residual."""
    packed, n_selected = pack_signs(corrected, offset, key, threshold)
    signs = torch.empty_like(corrected)
    put_signs(packed, offset, key, threshold, signs)
    new_residual.copy_(corrected - c * signs)
    return packed, n_selected


def _mask(offset: int, like: Tensor, key: int, threshold: int) -> Tensor | None:
    """Return the mask (count,) bool; None where every element is selected."""
    if threshold == ALL_SELECTED:
        return None
    if threshold == 0:
        return torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    return reference_hashing.keep_mask(offset, like.numel(), key, threshold, like.device)
