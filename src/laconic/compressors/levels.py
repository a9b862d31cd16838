"""Signed levels of a block's scale, rounded stochastically so that their mean is the value; for `qsgd` and others."""

import torch
from torch import Tensor

from laconic.compressors.compressor import as_values
from laconic.kernels.api import FRACTION_BITS, BlockLengths, grid_positions, per_element, quantize_levels
from laconic.wire import Levels


def levels(
    values: Tensor, scales: Tensor, lengths: BlockLengths, steps: int, *, entropy: bool, offset: int, key: int
) -> Levels:
    """Round values stochastically to multiples of scale / steps.

    Args:
        values: (d,) float32 or float64.
        scales: (blocks,) of the same type, not negative.
        lengths: Sizes of the blocks, which add up to d.
        steps: Number of levels above zero, 1 .. 255.
        entropy: Send the levels in an entropy code.
        offset: Number of the first coordinate in the full model.
        key: Key of the draws, 0 .. 2**64 - 1.
    """
    packed = quantize_levels(values, scales, lengths, steps, offset, key)
    return Levels(
        packed=packed, count=values.numel(), scales=scales, lengths=lengths, steps=steps, entropy=entropy, offset=offset
    )


def levels_outgrow_residual(lengths: BlockLengths, steps: int) -> bool:
    """Return whether levels of the L2 norm leave out more than the vector: in blocks of 9 steps^2 elements or more.

    An element below norm / steps has the variance |v| (norm / steps - |v|). In a block of B normal values, ||v||_1 is
    about 0.8 sqrt(B) norm, so the variances exceed the square of the norm where 0.8 sqrt(B) > 2 steps. A residual has
    heavier tails; 9 steps^2 was found by trial (tests/compressors/test_growing_residuals.py).
    """
    return lengths.longest >= 9 * steps * steps


def level_variances(values: Tensor, scales: Tensor, lengths: BlockLengths, steps: int) -> Tensor:
    """Return the variances of `levels`: (scale / steps)^2 f (1 - f) with f the fraction of |v| / (scale / steps).

    Args:
        values: (d,) float32 or float64.
        scales: (blocks,) of the same type.
        lengths: Sizes of the blocks, which add up to d.
        steps: Number of levels above zero.

    Returns:
        (d,) float64.
    """
    return place_variances(as_values(values).abs(), torch.zeros_like(scales), scales, lengths, steps)


def place_variances(values: Tensor, lows: Tensor, highs: Tensor, lengths: BlockLengths, max_code: int) -> Tensor:
    """Return the variances of stochastic rounding to a grid: D^2 f (1 - f).

    D is the distance of grid points, and f the position of a value between its two neighbors, as a fraction of D.

    Args:
        values: (d,) float32 or float64.
        lows: (blocks,) of the same type, the first grid point of each block.
        highs: (blocks,) of the same type, the last one.
        lengths: Sizes of the blocks, which add up to d.
        max_code: Number of the last grid point, counted from 0.

    Returns:
        (d,) float64.
    """
    found = grid_positions(values, lows, highs, lengths, max_code).double() * 2.0**-FRACTION_BITS
    step = (per_element(highs, lengths).double() - per_element(lows, lengths).double()) / max_code
    return step.square() * found.frac() * (1 - found.frac())
