"""Sums and means of vectors: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.finite import absolute_maximum

_CHUNK = 1 << 16  # elements that are added up at a time, in a cache


def add_up(vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True) -> float:
    """Write the sum of vectors, added in their order, divided by a number.

    Args:
        vectors: At least one; (d,) each, of the type of `out`.
        out: (d,), overwritten; it may be one of the vectors only if that is the first.
        divisor: What the sum is divided by.
        from_zero: Whether the sum begins with 0, which makes -0.0 to 0.0, or with the first vector.

    Returns:
        The largest magnitude of `out`; NaN if it has one.
    """
    out.copy_(vectors[0])
    if from_zero:
        out.add_(0.0)
    for vector in vectors[1:]:
        out.add_(vector)
    if divisor != 1:
        out.div_(divisor)
    return absolute_maximum(out)


def add_up_rings(vectors: Sequence[Tensor], bounds: Sequence[tuple[int, int]], out: Tensor) -> None:
    """Write the sum of vectors, each slice added as it goes around a ring that ends at its own rank.

    Slice k begins as that of vector k - 1; vectors k - 2, k - 3 and so on are added, behind vector 0 the last one.

    Args:
        vectors: As many as slices; (d,) each, of the type of `out`.
        bounds: The slices (start, stop), which cover all of `out`.
        out: (d,), overwritten; none of the vectors.
    """
    n = len(vectors)
    for k, (start, stop) in enumerate(bounds):
        part = out[start:stop].copy_(vectors[k - 1][start:stop])
        for step in range(2, n + 1):
            part.add_(vectors[(k - step) % n][start:stop])


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], out: Tensor) -> Tensor:
    """Write the sum of vectors times their weights, added in their order, from 0.

    Args:
        vectors: (d,) each.
        weights: One for each vector.
        out: (d,), overwritten; none of the vectors.

    Returns:
        `out`.
    """
    chunk = _CHUNK if out.device.type == "cpu" else max(1, out.numel())  # a multiple of every vector register
    for start in range(0, out.numel(), chunk):
        place = slice(start, start + chunk)
        part = out[place].zero_()
        for vector, weight in zip(vectors, weights, strict=True):
            part.add_(vector[place], alpha=weight)
    return out


def mixed_difference(
    updated: Tensor, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float], out: Tensor
) -> Tensor:
    """Write updated - published + `weighted_sum` of copies - published, in this order.

    Args:
        updated: (d,).
        published: (d,).
        copies: (d,) each, at least one.
        weights: One for each copy.
        out: (d,), overwritten; none of the vectors.

    Returns:
        `out`.
    """
    mixed = weighted_sum(copies, weights, torch.empty_like(out))
    return weighted_sum([updated, published, mixed, published], [1, -1, 1, -1], out)
