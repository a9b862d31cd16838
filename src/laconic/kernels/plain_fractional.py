"""The fractional quantizer in ordinary torch: magnitudes in levels of equal ratio, each level's mean.

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

MEAN_TOLERANCE = {torch.float32: 2.0**-20, torch.float64: 2.0**-40}  # of a level's mean, whoever adds it up


def level_bounds(largest: float, smallest: float, bits: int, dtype: torch.dtype) -> Tensor:
    """Where the levels end: (2**(bits-1) - 1,) of dtype, descending; m is in level l if l of the bounds are >= m.

    largest, smallest: magnitudes that are not zero; both 0 for a vector of zeros. Bound i is vmax / alpha**i, worked
    out from logarithms, since vmax / vmin may be more than a float holds, and rounded down, so that comparing it with
    a value of dtype is exact. Where all magnitudes are equal the bounds are 0, and only zeros are below level 0.
    """
    return torch.from_numpy(bounds_array(largest, smallest, bits, double=dtype != torch.float32))


def bounds_array(largest: float, smallest: float, bits: int, *, double: bool) -> NDArray[Any]:
    """`level_bounds` as an array of float64 or float32."""
    n_levels = 1 << (bits - 1)
    if not smallest < largest:  # NaN too
        return np.zeros(n_levels - 1, np.float64 if double else np.float32)
    top = math.log2(largest)
    span = top - math.log2(smallest)
    exact = np.array([min(math.exp2(top - i * span / n_levels), largest) for i in range(1, n_levels)], np.float64)
    if double:
        return exact
    bounds = exact.astype(np.float32)
    bounds.view(np.int32)[:] -= bounds > exact  # the next float towards 0 has the next smaller pattern
    return bounds


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(K,) -> packed codes (ceil(bits K / 8),) uint8 and means (2**(bits-1),) of values' type; see `level_bounds`.

    A code's lowest bits are the level, its highest one is set for a value below zero. Level 0 has the largest
    magnitudes; zeros are in the last one. A level's mean is its magnitudes', added up in float64 here, and 0 for an
    empty level. Other versions add in another order: means agree to MEAN_TOLERANCE, and codes to the bit.
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
    """Packed codes -> plus or minus the means of their levels: (count,) of means' type."""
    codes = unpack_codes(packed, count, bits)
    magnitudes = means.index_select(0, codes & ((1 << (bits - 1)) - 1))
    return torch.where(codes >> (bits - 1) > 0, -magnitudes, magnitudes)


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """total (count,), of any float type, += `fractional_dense`."""
    total.add_(fractional_dense(packed, means, count, bits))


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """(K,) int32 below 2**bits -> (ceil(bits K / 8),) uint8: `bits` bits each, lowest first, from the lowest up."""
    places = torch.arange(bits, dtype=torch.int32, device=codes.device)
    flags = (codes[:, None] >> places).bitwise_and_(1).flatten()
    n_bytes = (len(flags) + 7) // 8
    padded = torch.zeros(8 * n_bytes, dtype=torch.int32, device=codes.device)
    padded[: len(flags)] = flags
    weights = 1 << torch.arange(8, dtype=torch.int32, device=codes.device)
    return (padded.view(n_bytes, 8) * weights).sum(1).to(torch.uint8)


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """The inverse of `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    flags = ((packed[:, None] >> places) & 1).flatten()[: bits * k].to(torch.int32)
    weights = 1 << torch.arange(bits, dtype=torch.int32, device=packed.device)
    return (flags.view(k, bits) * weights).sum(1, dtype=torch.int32)
