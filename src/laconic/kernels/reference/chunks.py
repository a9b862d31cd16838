"""The largest magnitudes of each chunk of a vector: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.flatten import gather_scaled
from laconic.kernels.reference.residuals import correct


def top_k_by_chunk(vector: Tensor, size: int, k: int, last_k: int) -> Tensor:
    """Return the indices of the largest magnitudes of each chunk, as `reference.top_k.top_k` chooses them.

    Args:
        vector: (d,) float32 or float64.
        size: Elements of every chunk but the last one, which has the rest: 1 .. size.
        k: How many to take of every chunk but the last one.
        last_k: How many to take of the last one.

    Returns:
        (n,) int64, ascending, counted over all chunks.
    """
    start = (vector.numel() - 1) // size * size  # of the last chunk
    last = _of_rows(vector[start:][None], last_k) + start
    return torch.cat([_of_rows(vector[:start].reshape(-1, size), k), last]) if start else last


def correct_top_k_by_chunk(
    vector: Tensor, residual: Tensor, size: int, k: int, last_k: int, *, divisor: int = 1, decay: float = 1.0
) -> Tensor:
    """Do what `correct` of `reference/residuals.py` does, and return what `top_k_by_chunk` chooses of the result."""
    correct(vector, residual, divisor=divisor, decay=decay)
    return top_k_by_chunk(vector, size, k, last_k)


def gather_top_k_by_chunk(
    tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, residual: Tensor, size: int, k: int, last_k: int,
    *, decay: float = 1.0,
) -> tuple[bool, Tensor]:  # fmt: skip
    """Write tensors times their factors plus decay residual, and choose of the result as `top_k_by_chunk` does.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        factors: One for each tensor.
        out: (d,) float32 or float64, overwritten.
        residual: (d,) of its type.
        size: As for `top_k_by_chunk`, as `k` and `last_k`.
        k: How many to take of every chunk but the last one.
        last_k: How many to take of the last one.
        decay: Factor of the residual.

    Returns:
        Whether no product of a tensor and its factor is inf or NaN, and the indices, (n,) int64.
    """
    is_finite = gather_scaled(tensors, factors, out)
    return is_finite, correct_top_k_by_chunk(out, residual, size, k, last_k, decay=decay)


def _of_rows(rows: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest magnitudes of each row (n, size), counted over all rows: (n k,)."""
    integer = torch.int32 if rows.dtype == torch.float32 else torch.int64
    magnitudes = rows.view(integer) & torch.iinfo(integer).max  # in the order of the numbers, NaN above infinity
    threshold = magnitudes.topk(k, sorted=False).values.amin(1, keepdim=True)
    taken = magnitudes > threshold
    ties = magnitudes == threshold
    taken |= ties & (ties.cumsum(1, dtype=torch.int32) <= k - taken.sum(1, keepdim=True))
    return taken.view(-1).nonzero().flatten()
