"""What is done to a sum of vectors, in ordinary torch."""

import math

import torch
from torch import Tensor


def divide(total: Tensor, n: int) -> bool:
    """total (d,) /= n, in place. Returns whether no entry is inf or NaN."""
    total /= n
    return all_finite(total)


def all_finite(vector: Tensor) -> bool:
    """Whether no entry of a vector (d,) is inf or NaN.

    A sum of squares cannot cancel them; where it overflows of itself, every entry is looked at.
    """
    if vector.dtype in (torch.float32, torch.float64) and math.isfinite(float(torch.dot(vector, vector))):
        return True
    return bool(torch.isfinite(vector).all())
