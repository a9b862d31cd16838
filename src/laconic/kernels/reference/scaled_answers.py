"""A server's answer to scaled signs, with error feedback: the reference, in torch.

Its means of magnitudes have the tolerance of `reference.residuals`.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from laconic.kernels.reference.residuals import add_scaled_signs, correct_signs


def answer_scaled_signs(
    packed: Sequence[Tensor], scales: Sequence[Tensor], residual: Tensor, new_residual: Tensor, lengths: Sequence[int],
    *, divisor: int, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Add up scaled signs of several senders, correct the sum with a residual, and compress it to scaled signs.

        corrected = (sum of the scaled signs) / divisor + decay residual
        new_residual = corrected less the answer

    Args:
        packed: The signs of each sender.
        scales: Their scales, (blocks,) each, of the residual's type.
        residual: (d,) float32 or float64, residual before the step.
        new_residual: (d,), contiguous, overwritten; not the old one.
        lengths: Elements of each block, for all senders and for the answer.
        divisor: The divisor of the sum.
        decay: Factor of the residual.

    Returns:
        The packed signs of the corrected vector, and its mean magnitude in each block.
    """  # fmt: skip
    return by_sum(
        add_scaled_signs, correct_signs, packed, scales, residual, new_residual, lengths, divisor=divisor, decay=decay
    )


def by_sum(
    add: Callable[..., None], correct_: Callable[..., tuple[Tensor, Tensor]], packed: Sequence[Tensor],
    scales: Sequence[Tensor], residual: Tensor, new_residual: Tensor, lengths: Sequence[int],
    *, divisor: int, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Make the same through a sum in `new_residual`, by a backend's `add_scaled_signs` and `correct_signs`."""
    new_residual.zero_()
    for signs, sizes in zip(packed, scales, strict=True):
        add(signs, sizes, lengths, new_residual)
    made, means = correct_(new_residual, residual, lengths, divisor=divisor, decay=decay)
    add(made, -means, lengths, new_residual)
    return made, means
