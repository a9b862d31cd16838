"""Division of vectors that are added afterwards, and the check for inf and NaN: the reference, in torch."""

import math

import torch
from torch import Tensor

_EDGE = 1 - 2.0**-10  # share of the largest float; beyond it, rounding may carry a sum to infinity


def max_quotient(dtype: torch.dtype, n: int) -> float:
    """Return the largest magnitude that n addends may have so that no sum of them, however rounded, is infinite."""
    return torch.finfo(dtype).max * _EDGE / n


def divide(vector: Tensor, n: int) -> bool:
    """Divide a vector by n, in place.

    Args:
        vector: (d,).
        n: The divisor, and the number of such vectors that are added afterwards.

    Returns:
        Whether n such vectors have a finite sum: no element is inf or NaN, or was within a thousandth of the largest
        float.
    """
    vector /= n
    return bool((vector.abs() <= max_quotient(vector.dtype, n)).all())


def absolute_maximum(vector: Tensor) -> float:
    """Return the largest magnitude of a vector (d,) of any float type: NaN if it has a NaN, 0 if it is empty."""
    return float(vector.abs().max()) if vector.numel() else 0.0


def all_finite(vector: Tensor) -> bool:
    """Return whether no element of a vector (d,) is inf or NaN.

    A sum of squares is finite only if all elements are. Where it overflows by itself, every element is checked.
    """
    if vector.dtype in (torch.float32, torch.float64) and math.isfinite(float(torch.dot(vector, vector))):
        return True
    return bool(torch.isfinite(vector).all())


def are_sizes(scales: Tensor) -> bool:
    """Return whether all of scales (n,) are finite and none is below zero."""
    return bool((torch.isfinite(scales) & (scales >= 0)).all())


def are_ranges(lows: Tensor, highs: Tensor) -> bool:
    """Return whether all of lows and highs (n,) are finite, and no low end is above its high end."""
    return bool((torch.isfinite(lows) & torch.isfinite(highs) & (lows <= highs)).all())
