"""Signed levels of a block's scale, drawn so that their mean is the value; what `qsgd` and others make of it."""

import torch
from torch import Tensor

from laconic.compressors.compressor import as_values
from laconic.kernels.api import FRACTION_BITS, places, quantize_levels, spread
from laconic.wire import Levels


def levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, *, entropy: bool, first: int, key: int
) -> Levels:
    """Values (d,) as multiples of scale / steps; scales: (blocks,)."""
    packed = quantize_levels(values, scales, lengths, steps, first, key)
    return Levels(
        packed=packed, count=values.numel(), scales=scales, lengths=lengths, steps=steps, entropy=entropy, first=first
    )


def levels_outgrow_debt(lengths: tuple[int, ...], steps: int) -> bool:
    """Whether levels of the L2 norm leave out more than there is: from blocks of 9 steps^2 entries on.

    An entry of B below norm / steps has the variance |v| (norm / steps - |v|), and ||v||_1 is about 0.8 sqrt(B) norm
    for normal values: together more than the square of the norm where 0.8 sqrt(B) > 2 steps. The debt itself is
    heavier in its tails; 9 steps^2 is what it was tried with (tests/compressors/test_growing_residuals.py).
    """
    return max(lengths, default=0) >= 9 * steps * steps


def level_variances(values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """(scale / steps)^2 f (1 - f) with f the fraction of |v| / (scale / steps): (d,) float64."""
    return place_variances(as_values(values).abs(), torch.zeros_like(scales), scales, lengths, steps)


def place_variances(values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], most: int) -> Tensor:
    """D^2 f (1 - f) with D from one code's value to the next and f how far an entry is on the way: (d,) float64."""
    found = places(values, lows, highs, lengths, most).double() * 2.0**-FRACTION_BITS
    step = (spread(highs, lengths).double() - spread(lows, lengths).double()) / most
    return step.square() * found.frac() * (1 - found.frac())
