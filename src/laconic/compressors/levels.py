"""Signed levels of a block's scale, drawn so that their mean is the value; what `qsgd` and others make of it."""

import torch
from torch import Tensor

from laconic.compressors.blocks import per_block
from laconic.compressors.compressor import as_values
from laconic.kernels import quantize_levels
from laconic.kernels.plain_quantized import level_places, spread
from laconic.wire import Levels


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """||v_b||_2 of each block, no smaller than its largest magnitude: (blocks,) of v's dtype, worked out in float64."""
    return per_block(values, lengths, _row_norms)


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """max |v_b| of each block: (blocks,) of v's dtype."""
    return per_block(values, lengths, lambda rows: rows.abs().amax(1))


def levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, *, entropy: bool, first: int, key: int
) -> Levels:
    """Values (d,) as multiples of scale / steps; scales: (blocks,)."""
    drawn = quantize_levels(values, scales, lengths, steps, first, key)
    return Levels(levels=drawn, scales=scales, lengths=lengths, steps=steps, entropy=entropy, first=first)


def levels_outgrow_debt(lengths: tuple[int, ...], steps: int) -> bool:
    """Whether levels of the L2 norm leave out more than there is: from blocks of 9 steps^2 entries on.

    An entry of B below norm / steps has the variance |v| (norm / steps - |v|), and ||v||_1 is about 0.8 sqrt(B) norm
    for normal values: together more than the square of the norm where 0.8 sqrt(B) > 2 steps. The debt itself is
    heavier in its tails; 9 steps^2 is what it was tried with (tests/test_growing_debts.py).
    """
    return max(lengths, default=0) >= 9 * steps * steps


def level_variances(values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """(scale / steps)^2 f (1 - f) with f the fraction of |v| / (scale / steps): (d,) float64."""
    fractions = level_places(as_values(values), scales, lengths, steps).frac()
    return (spread(scales, lengths) / steps).square() * fractions * (1 - fractions)


def _row_norms(rows: Tensor) -> Tensor:
    """(rows, size) -> (rows,); divided by the largest first, so that no square overflows or vanishes."""
    largest = rows.double().abs().amax(1)
    divisor = torch.where(largest > 0, largest, 1.0)
    exact = largest * (rows.double() / divisor[:, None]).square().sum(1).sqrt()
    return torch.maximum(exact, largest).to(rows.dtype).maximum(rows.abs().amax(1))
