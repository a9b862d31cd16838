"""Elements of a vector at some indices: the reference, in torch. Indices are (k,) int64, ascending, each once."""

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
