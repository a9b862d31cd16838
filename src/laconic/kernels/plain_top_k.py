"""Exact top-K in ordinary torch."""

import torch
from torch import Tensor


def top_k(vector: Tensor, k: int) -> Tensor:
    """The positions of the k largest magnitudes, ties by the lower position: (d,) -> (k,) int64, ascending.

    Magnitudes are compared by their bits without the sign, as integers: the same order as the numbers', with
    NaN above infinity.
    """
    d = vector.numel()
    assert 1 <= k <= d, (k, d)
    integer = torch.int32 if vector.dtype == torch.float32 else torch.int64
    magnitudes = vector.contiguous().view(integer) & torch.iinfo(integer).max
    threshold = magnitudes.topk(k, sorted=False).values.min()
    taken = magnitudes > threshold
    ties = (magnitudes == threshold).nonzero().flatten()
    taken[ties[: k - int(taken.sum())]] = True
    return taken.nonzero().flatten()
