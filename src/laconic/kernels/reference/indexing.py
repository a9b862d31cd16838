"""Elements of a vector at some indices: the reference, in torch. Indices are (k,) int64, ascending, each once."""

from collections.abc import Sequence

import torch
from torch import Tensor


def take_at(vector: Tensor, indices: Tensor) -> Tensor:
    """Return the elements of `vector` (d,) at the indices: (k,)."""
    return vector.index_select(0, indices)


def add_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """Add `values` (k,), of the vector's type, to `vector` (d,) at the indices, in place."""
    vector.index_add_(0, indices, values)


def clear_at(vector: Tensor, indices: Tensor) -> None:
    """Set `vector` (d,) to 0 at the indices."""
    vector.index_fill_(0, indices, 0)


@torch.no_grad()
def take_from(tensors: Sequence[Tensor], indices: Tensor) -> Tensor:
    """Return the elements of the vector that tensors of one type make, at the indices: (k,)."""
    if not indices.numel():  # of no tensors too
        return torch.empty(0, dtype=tensors[0].dtype if tensors else torch.float32, device=indices.device)
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).index_select(0, indices)


@torch.no_grad()
def set_at(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """Set elements of the vector that tensors make to `values` (k,), at the indices."""
    start, indices = 0, indices.contiguous()
    for tensor in tensors:
        low, high = torch.searchsorted(indices, torch.tensor([start, start + tensor.numel()], device=indices.device))
        flat = tensor.reshape(-1).index_copy(0, indices[low:high] - start, values[low:high].to(tensor))
        tensor.copy_(flat.view(tensor.shape))
        start += tensor.numel()
