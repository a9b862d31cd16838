"""Error feedback with scaled signs, and with any compressor: the reference, in torch.

Shapes: d elements in blocks of the given lengths, which add up to d. `packed`, (ceil(d/8),) uint8, holds a sign for
every element as in `reference.signs`. Scalars are rounded to the vectors' type, and no operations are fused or
reordered.

The mean magnitude of a block is added up in float64. Compiled versions add float32 in another order: they agree to
2**-22 of the mean. Of float64, where the order shows in the last bits, versions on the CPU give the same; on a GPU they
agree to 2**-40.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.reference.signs import ALL_SELECTED, pack_signs, put_signs
from laconic.kernels.reference.stochastic_rounding import per_block, per_element


def correct(vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0) -> None:
    """Write vector / divisor + decay residual over the vector.

    Args:
        vector: (d,) float32 or float64, contiguous, overwritten.
        residual: (d,) of the same type.
        divisor: The divisor of the vector.
        decay: Factor of the residual.
    """
    vector.copy_(vector / divisor + decay * residual)


def mean_signs(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the signs of a vector and the mean magnitude of each block, ||v_b||_1 / d_b.

    Args:
        values: (d,) float32 or float64.
        lengths: Elements of each block.

    Returns:
        The packed signs of all elements, and (blocks,) of the values' type.
    """
    return pack_signs(values, 0, 0, ALL_SELECTED)[0], mean_magnitudes(values, lengths)


def mean_magnitudes(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the mean magnitude of each block of values (d,) float32 or float64: (blocks,) of the values' type."""
    blocks = BlockLengths.of(lengths)
    sums = per_block(values.abs(), blocks, lambda rows: rows.sum(1, dtype=torch.float64))
    return (sums / blocks.on(values.device)).to(values.dtype)


def correct_signs(
    vector: Tensor, residual: Tensor, lengths: Sequence[int], *, divisor: int = 1, decay: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Do what `correct` does, and return `mean_signs` of what it wrote.

    Args:
        vector: (d,) float32 or float64, contiguous, overwritten.
        residual: (d,) of the same type.
        lengths: Elements of each block.
        divisor: The divisor of the vector.
        decay: Factor of the residual.
    """
    correct(vector, residual, divisor=divisor, decay=decay)
    return mean_signs(vector, lengths)


def momentum_correct_signs(
    gradient: Tensor, momentum: Tensor, residual: Tensor, new_momentum: Tensor, lengths: Sequence[int],
    *, mu: float, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Take a step of Nesterov momentum, correct it with the residual, and return the `mean_signs` of the result.

        new_momentum = mu momentum + gradient
        gradient <- (mu new_momentum + gradient) + decay residual

    Args:
        gradient: (d,) float32 or float64, contiguous, overwritten.
        momentum: (d,) of the same type, momentum before the step.
        residual: (d,), residual before the step.
        new_momentum: (d,), contiguous, overwritten; may be the old one.
        lengths: Elements of each block.
        mu: The momentum factor.
        decay: Factor of the residual.
    """  # fmt: skip
    new_momentum.copy_(mu * momentum + gradient)
    gradient.copy_(mu * new_momentum + gradient + decay * residual)
    return mean_signs(gradient, lengths)


def put_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], out: Tensor) -> None:
    """Write every block's scale with the signs of its elements.

    Args:
        packed: The signs.
        scales: (blocks,) of any float type, in which it is computed.
        lengths: Elements of each block.
        out: (d,) of any float type, overwritten.
    """
    blocks = BlockLengths.of(lengths)
    signs = torch.empty(blocks.total, dtype=scales.dtype, device=scales.device)
    put_signs(packed, 0, 0, ALL_SELECTED, signs)
    out.copy_(signs.mul_(per_element(scales, blocks)))


def add_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], total: Tensor) -> None:
    """Add the same to `total` (d,), of any float type, in place. Negated scales subtract it."""
    dense = torch.empty(total.numel(), dtype=scales.dtype, device=scales.device)
    put_scaled_signs(packed, scales, lengths, dense)
    total.add_(dense)
