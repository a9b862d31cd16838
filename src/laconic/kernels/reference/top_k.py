"""Exact top-K: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def top_k(vector: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest magnitudes; of equal ones, the lower index comes first.

    Magnitudes are compared as integers, by their bits without the sign: the order of the numbers, with NaN above
    infinity.

    Args:
        vector: (d,) float32 or float64.
        k: 1 .. d.

    Returns:
        (k,) int64, ascending.
    """
    integer = torch.int32 if vector.dtype == torch.float32 else torch.int64
    magnitudes = vector.contiguous().view(integer) & torch.iinfo(integer).max
    threshold = magnitudes.topk(k, sorted=False).values.min()
    taken = magnitudes > threshold
    ties = (magnitudes == threshold).nonzero().flatten()
    taken[ties[: k - int(taken.sum())]] = True
    return taken.nonzero().flatten()


def top_k_by_block(vector: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """Return what `top_k` chooses in each block.

    Args:
        vector: (d,) float32 or float64.
        blocks: The length of each block, which add up to d, and how many elements to take of it.

    Returns:
        (n,) int64, ascending, counted over all blocks.
    """
    found, start = [], 0
    for length, k in blocks:
        found.append(top_k(vector[start : start + length], k) + start)
        start += length
    return torch.cat(found)
