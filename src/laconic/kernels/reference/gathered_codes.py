"""Codes of a vector that is there as tensors only, such as a model's gradient tensors: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.flatten import gather
from laconic.kernels.reference.stochastic_rounding import quantize, ranges


def ranges_of_tensors(tensors: Sequence[Tensor], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the `ranges` of the vector that tensors make.

    Args:
        tensors: Tensors of any shapes, all float32 or all float64, d elements in all.
        lengths: Elements of each block, which add up to d.

    Returns:
        (blocks,) of the tensors' type each.
    """
    return ranges(_vector_of(tensors), lengths)


def quantize_tensors(
    tensors: Sequence[Tensor], lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """Return what `quantize` makes of the vector that tensors make. Arguments as for it and `ranges_of_tensors`."""
    return quantize(_vector_of(tensors), lows, highs, lengths, bits, offset, key)


def _vector_of(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors, one behind the other, as a vector (d,)."""
    out = torch.empty(sum(tensor.numel() for tensor in tensors), dtype=tensors[0].dtype, device=tensors[0].device)
    gather(tensors, out)
    return out
