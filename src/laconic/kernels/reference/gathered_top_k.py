"""A vector made of tensors, and the largest magnitudes of its blocks: the reference, in torch."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from laconic.kernels.reference.flatten import gather_scaled
from laconic.kernels.reference.top_k import top_k_by_block


class Guesses:
    """About which magnitude the next selection from each block will end at, by the last ones.

    A guess decides how long a selection takes, never its result, so none is saved.
    """

    def __init__(self) -> None:
        self.magnitudes = np.zeros(0, np.int64)
        """(blocks,), as bits; empty at the start."""


def gather_top_k(
    tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None,
    blocks: Sequence[tuple[int, int]], guesses: Guesses,
) -> tuple[bool, Tensor]:  # fmt: skip
    """Do what `gather_scaled` does, and return what `top_k_by_block` chooses of the result.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        factors: One for each tensor.
        out: (d,) float32 or float64, overwritten.
        plus: (d,), added after the multiplication; None to add 0.0.
        blocks: The length of each block, which add up to d, and how many elements to take of it, 1 .. length.
        guesses: Those of the last selection from the same blocks; overwritten.

    Returns:
        Whether no element of `out` is inf or NaN, and the indices, (n,) int64, ascending.
    """
    is_finite = gather_scaled(tensors, factors, out, plus)
    return is_finite, top_k_by_block(out, blocks)
