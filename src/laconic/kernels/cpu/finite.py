"""Division, the largest magnitude and the checks for inf and NaN, compiled: one thread, one pass, the same bits.

Reference: `reference/finite.py`.
"""

from struct import Struct
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.reference import finite as reference_finite
from laconic.kernels.reference.finite import max_quotient


def divide(vector: Tensor, n: int) -> bool:
    """See `reference.finite.divide`."""
    return bool(_divide(vector.detach().numpy(), float(n), max_quotient(vector.dtype, n)))


@kernel
def _divide(vector: NDArray[Any], n: float, max_magnitude: float) -> bool:
    number = vector.dtype.type
    by, limit = number(n), number(max_magnitude)
    non_finite = False
    for start in range(0, vector.size, 1024):
        part = vector[start : start + 1024]
        wrong = np.uint32(0)
        for i in range(part.size):
            part[i] /= by
            wrong |= np.uint32(not (abs(part[i]) <= limit))  # False for NaN
        non_finite |= wrong != 0
    return not non_finite


# Integers as wide, all bits but the sign, and how such an integer's bytes are read as a float.
_PATTERNS: dict[torch.dtype, tuple[Any, Any, Struct, Struct]] = {
    torch.float32: (np.int32, np.int32(np.iinfo(np.int32).max), Struct("=i"), Struct("=f")),
    torch.float64: (np.int64, np.int64(np.iinfo(np.int64).max), Struct("=q"), Struct("=d")),
}

_UNSIGNED: dict[torch.dtype, tuple[Any, Any]] = {  # integers as wide, and the bits of inf
    torch.float32: (np.uint32, np.uint32(0x7F800000)),
    torch.float64: (np.uint64, np.uint64(0x7FF0000000000000)),
}


def absolute_maximum(vector: Tensor) -> float:
    """See `reference.finite.absolute_maximum`."""
    return magnitude_of(_largest_pattern(*patterns_of(vector)), vector.dtype)


def patterns_of(vector: Tensor) -> tuple[NDArray[Any], Any]:
    """Return the bits of a vector (d,) as integers, which share its memory, and the mask of all bits but the sign."""
    integer, mask, _, _ = _PATTERNS[vector.dtype]
    return (vector.detach() if vector.requires_grad else vector).numpy().view(integer), mask


def magnitude_of(pattern: Any, dtype: torch.dtype) -> float:  # noqa: ANN401 - an integer of the patterns' type
    """Return the number whose bits are these."""
    _, _, as_bytes, as_float = _PATTERNS[dtype]
    magnitude: float = as_float.unpack(as_bytes.pack(pattern))[0]
    return magnitude


def all_finite(vector: Tensor) -> bool:
    """See `reference.finite.all_finite`."""
    return bool(_all_finite(vector.detach().numpy()))


def are_sizes(scales: Tensor) -> bool:
    """See `reference.finite.are_sizes`."""
    values = scales.detach().numpy()
    kind, infinite = _UNSIGNED[scales.dtype]
    if _largest_pattern(values.view(kind), ~kind(0)) < infinite:  # a sign is the highest bit
        return True
    return reference_finite.are_sizes(scales)  # -0.0 is no wrong size


def are_ranges(lows: Tensor, highs: Tensor) -> bool:
    """See `reference.finite.are_ranges`."""
    return bool(_are_ranges(lows.detach().numpy(), highs.detach().numpy()))


_STREAMS, _STEP = 4, 1024  # read side by side: a processor prefetches each of them


@kernel
def _largest_pattern(patterns: NDArray[Any], mask: Any) -> Any:  # noqa: ANN401 - an integer of the patterns' type
    """Return the largest of the bits that a mask leaves: without signs they have magnitudes' order, NaN behind inf."""
    found = mask ^ mask  # 0
    quarter = patterns.size // (_STREAMS * _STEP) * _STEP
    for start in range(0, quarter, _STEP):
        a, b = patterns[start : start + _STEP], patterns[quarter + start : quarter + start + _STEP]
        c, d = patterns[2 * quarter + start :][:_STEP], patterns[3 * quarter + start :][:_STEP]
        for i in range(_STEP):
            found = max(found, max(max(a[i] & mask, b[i] & mask), max(c[i] & mask, d[i] & mask)))
    rest = patterns[_STREAMS * quarter :]
    for i in range(rest.size):
        found = max(found, rest[i] & mask)
    return found


@kernel
def _all_finite(values: NDArray[Any]) -> bool:
    none = values.dtype.type(0)
    quarter = values.size // (_STREAMS * _STEP) * _STEP
    wrong = np.uint32(0)
    for start in range(0, quarter, _STEP):
        a, b = values[start : start + _STEP], values[quarter + start : quarter + start + _STEP]
        c, d = values[2 * quarter + start :][:_STEP], values[3 * quarter + start :][:_STEP]
        for i in range(_STEP):  # x - x is 0, or NaN for inf and NaN
            non_finite = (a[i] - a[i]) + (b[i] - b[i]) + (c[i] - c[i]) + (d[i] - d[i])
            wrong |= np.uint32(non_finite != none)
        if wrong:
            return False
    rest = values[_STREAMS * quarter :]
    for i in range(rest.size):
        wrong |= np.uint32(rest[i] - rest[i] != none)
    return bool(wrong == np.uint32(0))


@kernel
def _are_ranges(lows: NDArray[Any], highs: NDArray[Any]) -> bool:
    infinite, wrong = lows.dtype.type(np.inf), np.uint32(0)
    for i in range(lows.size):
        low, high = lows[i], highs[i]
        wrong |= np.uint32(0) if (low > -infinite) & (low <= high) & (high < infinite) else np.uint32(1)
    return bool(wrong == np.uint32(0))
