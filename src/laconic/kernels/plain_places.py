"""Entries of a vector at some of its places, in ordinary torch. Places are (k,) int64, ascending, each once."""

from torch import Tensor


def take_at(vector: Tensor, places: Tensor) -> Tensor:
    """The entries of `vector` (d,) at the places: (k,)."""
    return vector.index_select(0, places)


def add_at(vector: Tensor, places: Tensor, values: Tensor) -> None:
    """`vector` (d,) += `values` (k,), of its type, at the places."""
    vector.index_add_(0, places, values)


def clear_at(vector: Tensor, places: Tensor) -> None:
    """`vector` (d,) = 0 at the places."""
    vector.index_fill_(0, places, 0)
