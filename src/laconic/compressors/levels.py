"""Signed levels of a block's scale, drawn so that their mean is the value; what `qsgd` and others make of it."""

import torch
from torch import Tensor

from laconic.compressors.compressor import as_values
from laconic.kernels.api import FRACTION_BITS, grid_positions, per_element, quantize_levels
from laconic.wire import Levels


def levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, *, entropy: bool, offset: int, key: int
) -> Levels:
    """Values (d,) as multiples of scale / steps; scales: (blocks,)."""
    packed = quantize_levels(values, scales, lengths, steps, offset, key)
    return Levels(
        packed=packed, count=values.numel(), scales=scales, lengths=lengths, steps=steps, entropy=entropy, offset=offset
    )


def levels_outgrow_residual(lengths: tuple[int, ...], steps: int) -> bool:
    """Whether levels of the L2 norm leave out more than there is: from blocks of 9 steps^2 elements on.

    An element of B below norm / steps has the variance |v| (norm / steps - |v|), and ||v||_1 is about 0.8 sqrt(B) norm
    for normal values: together more than the square of the norm where 0.8 sqrt(B) > 2 steps. The residual itself is
    heavier in its tails; 9 steps^2 is what it was tried with (tests/compressors/test_growing_residuals.py).
    """
    return max(lengths, default=0) >= 9 * steps * steps


def level_variances(values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """(scale / steps)^2 f (1 - f) with f the fraction of |v| / (scale / steps): (d,) float64."""
    return place_variances(as_values(values).abs(), torch.zeros_like(scales), scales, lengths, steps)


def place_variances(values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], max_code: int) -> Tensor:
    """D^2 f (1 - f) with D from one code's value to the next and f how far an element is on the way: (d,) float64."""
    found = grid_positions(values, lows, highs, lengths, max_code).double() * 2.0**-FRACTION_BITS
    step = (per_element(highs, lengths).double() - per_element(lows, lengths).double()) / max_code
    return step.square() * found.frac() * (1 - found.frac())
