"""What is done to a sum of vectors, in ordinary torch."""

import torch
from torch import Tensor

from laconic.kernels.plain import all_finite


def divide(total: Tensor, n: int) -> bool:
    """total (d,) /= n, in place. Returns whether no entry is inf or NaN."""
    total /= n
    return all_finite(total)


def subtract(one: Tensor, other: Tensor, out: Tensor) -> bool:
    """out = one - other, (d,) all. Returns whether no entry is inf or NaN."""
    torch.sub(one, other, out=out)
    return all_finite(out)
