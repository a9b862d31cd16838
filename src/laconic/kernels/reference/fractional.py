"""The fractional quantizer: magnitudes in levels of equal ratio, and each level's mean. The reference, in torch.

Ozfatura, Ozfatura, Gunduz: Distributed Sparse SGD with Majority Voting, section 4.3.2. With L = 2**(bits-1) levels,
vmax and vmin the largest and the smallest magnitude that is not zero, and alpha = (vmax / vmin)**(1/L), a magnitude m
is in level floor(log(vmax / m) / log(alpha)), at most L - 1.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEAN_TOLERANCE = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}  # relative; means are added in any order


def level_bounds(largest: float, smallest: float, bits: int, dtype: torch.dtype) -> Tensor:
    """Return where the levels end: m is in level l if exactly l of the bounds are at least m.

    Bound i is vmax / alpha**i. It is computed from logarithms, since vmax / vmin may be more than a float holds, and
    rounded down, so that comparing it with a value of `dtype` is exact. Where all magnitudes are equal, the bounds are
    0, so that only zeros are below level 0.

    Args:
        largest: The largest magnitude; 0 for a vector of zeros.
        smallest: The smallest magnitude that is not zero; 0 for a vector of zeros.
        bits: Bits of a code, 1 .. 16.
        dtype: Type of the values, float32 or float64.

    Returns:
        (2**(bits-1) - 1,) of `dtype`, descending.
    """
    return torch.from_numpy(bounds_array(largest, smallest, bits, double=dtype != torch.float32))


def bounds_array(largest: float, smallest: float, bits: int, *, double: bool) -> NDArray[Any]:
    """Return `level_bounds` as an array of float64 or float32."""
    n_levels = 1 << (bits - 1)
    if not smallest < largest:  # NaN too
        return np.zeros(n_levels - 1, np.float64 if double else np.float32)
    top = math.log2(largest)
    span = top - math.log2(smallest)
    exact = np.array([min(math.exp2(top - i * span / n_levels), largest) for i in range(1, n_levels)], np.float64)
    if double:
        return exact
    bounds = exact.astype(np.float32)
    bounds.view(np.int32)[:] -= bounds > exact  # the next float toward 0 has the next smaller pattern
    return bounds


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Quantize values to packed codes and the mean magnitude of each level; see `level_bounds`.

    The lowest bits of a code are the level; its highest bit is set for a value below zero. Level 0 has the largest
    magnitudes, the last level has the zeros. A level's mean is that of its magnitudes, added in float64 here, and 0 for
    an empty level. Compiled versions add in another order: their codes are equal, their means agree to MEAN_TOLERANCE.

    Args:
        values: (K,) float32 or float64, K >= 1.
        bits: Bits of a code, 1 .. 16.

    Returns:
        Packed codes (ceil(bits K / 8),) uint8, and means (2**(bits-1),) of the values' type.
    """
    magnitudes = values.abs()
    n_levels = 1 << (bits - 1)
    nonzero = magnitudes[magnitudes != 0]
    largest, smallest = (float(nonzero.max()), float(nonzero.min())) if len(nonzero) else (0.0, 0.0)
    bounds = level_bounds(largest, smallest, bits, values.dtype).to(values.device)
    levels = n_levels - 1 - torch.searchsorted(bounds.flip(0), magnitudes)
    sums = torch.bincount(levels, magnitudes.double(), n_levels)
    counts = torch.bincount(levels, minlength=n_levels)
    codes = levels.int() | (values < 0).int() << (bits - 1)
    return pack_codes(codes, bits), (sums / counts.clamp(min=1)).to(values.dtype)


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """Return plus or minus the mean of each code's level.

    Args:
        packed: (ceil(bits count / 8),) uint8, as `fractional_codes` returns them.
        means: (2**(bits-1),).
        count: Number of codes.
        bits: Bits of a code.

    Returns:
        (count,) of the means' type.
    """
    codes = unpack_codes(packed, count, bits)
    magnitudes = means.index_select(0, codes & ((1 << (bits - 1)) - 1))
    return torch.where(codes >> (bits - 1) > 0, -magnitudes, magnitudes)


def put_fractional(packed: Tensor, means: Tensor, count: int, bits: int, out: Tensor) -> None:
    """Write `fractional_dense` to `out` (count,), of any float type."""
    out.copy_(fractional_dense(packed, means, count, bits))


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """Add `fractional_dense` to `total` (count,), of any float type, in place."""
    total.add_(fractional_dense(packed, means, count, bits))


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack (K,) int32 below 2**bits into (ceil(bits K / 8),) uint8: `bits` bits a code, lowest bits first."""
    bit_indices = torch.arange(bits, dtype=torch.int32, device=codes.device)
    flags = (codes[:, None] >> bit_indices).bitwise_and_(1).flatten()
    n_bytes = (len(flags) + 7) // 8
    padded = torch.zeros(8 * n_bytes, dtype=torch.int32, device=codes.device)
    padded[: len(flags)] = flags
    weights = 1 << torch.arange(8, dtype=torch.int32, device=codes.device)
    return (padded.view(n_bytes, 8) * weights).sum(1).to(torch.uint8)


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """Invert `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    bit_indices = torch.arange(8, dtype=torch.uint8, device=packed.device)
    flags = ((packed[:, None] >> bit_indices) & 1).flatten()[: bits * k].to(torch.int32)
    weights = 1 << torch.arange(bits, dtype=torch.int32, device=packed.device)
    return (flags.view(k, bits) * weights).sum(1, dtype=torch.int32)
