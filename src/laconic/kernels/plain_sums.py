"""What is done to vectors that are added up, in ordinary torch."""

import math

import torch
from torch import Tensor

_EDGE = 1 - 2.0**-10  # of the largest float; beyond it, roundings may add up to infinity


def most_of_share(dtype: torch.dtype, n: int) -> float:
    """The largest magnitude of an n-th, of which any n add up to no infinity, however the sum is rounded."""
    return torch.finfo(dtype).max * _EDGE / n


def divide(vector: Tensor, n: int) -> bool:
    """vector (d,) /= n, in place. Returns whether n such vectors have a finite sum.

    That is: no entry is inf or NaN, or was within a thousandth of the largest float.
    """
    vector /= n
    return bool((vector.abs() <= most_of_share(vector.dtype, n)).all())


def all_finite(vector: Tensor) -> bool:
    """Whether no entry of a vector (d,) is inf or NaN.

    A sum of squares cannot cancel them; where it overflows of itself, every entry is looked at.
    """
    if vector.dtype in (torch.float32, torch.float64) and math.isfinite(float(torch.dot(vector, vector))):
        return True
    return bool(torch.isfinite(vector).all())
