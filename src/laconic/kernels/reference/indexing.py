"""Elements of a vector at some indices: the reference, in torch. Indices are (k,) int64, ascending, each once."""

from collections.abc import Sequence

import torch
from torch import Tensor

BITS = {torch.float32: torch.int32, torch.float64: torch.int64}
"""Integers as wide as floats."""


def take_at(vector: Tensor, indices: Tensor) -> Tensor:
    """Return the elements of `vector` (d,) at the indices: (k,)."""
    return vector.index_select(0, indices)


def add_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """Add `values` (k,), of the vector's type, to `vector` (d,) at the indices, in place."""
    vector.index_add_(0, indices, values)


def elements_of(vector: Tensor, limit: int) -> tuple[Tensor, Tensor] | None:
    """Return where `vector` (d,) has other bits than 0.0, and its elements there; None for more than `limit`."""
    indices = (vector.view(BITS[vector.dtype]) != 0).nonzero().flatten()
    return None if indices.numel() > limit else (indices, vector.index_select(0, indices))


def put_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """Overwrite `vector` (d,) by `values` (k,), of its type, at the indices, and by 0 elsewhere."""
    vector.zero_().index_copy_(0, indices, values)


def clear_at(vector: Tensor, indices: Tensor) -> None:
    """Set `vector` (d,) to 0 at the indices."""
    vector.index_fill_(0, indices, 0)


@torch.no_grad()
def step_at(tensors: Sequence[Tensor], indices: Tensor, values: Tensor, *, factor: float) -> None:
    """Add `factor` times `values` (k,) to the vector that tensors make, at the indices, as a step of torch's SGD."""
    start, taken = 0, indices.contiguous()
    for tensor in tensors:
        stop = start + tensor.numel()
        low, high = torch.searchsorted(taken, torch.tensor([start, stop], device=taken.device))
        here = taken[low:high]
        flat = tensor.reshape(-1).clone()
        moved = flat.index_select(0, here - start).to(values).add_(values[low:high], alpha=factor).to(flat)
        tensor.copy_(flat.index_copy_(0, here - start, moved).view(tensor.shape))
        start = stop
