"""Elements at some indices, compiled, on one thread: many cache lines are fetched at a time.

Reference: `reference/indexing.py`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.reference import indexing as reference_indexing

Array = NDArray[Any]
Numbers = NDArray[np.int64]


def take_at(vector: Tensor, places: Tensor) -> Tensor:
    """See `reference.indexing.take_at`."""
    if not _is_plain(vector):
        return reference_indexing.take_at(vector, places)
    taken = torch.empty(places.numel(), dtype=vector.dtype)
    _take(vector.detach().numpy(), places.contiguous().numpy(), taken.numpy())
    return taken


def add_at(vector: Tensor, places: Tensor, values: Tensor) -> None:
    """See `reference.indexing.add_at`."""
    if not _is_plain(vector) or values.dtype != vector.dtype:
        reference_indexing.add_at(vector, places, values)
        return
    _add(vector.detach().numpy(), places.contiguous().numpy(), values.detach().contiguous().numpy())


def clear_at(vector: Tensor, places: Tensor) -> None:
    """See `reference.indexing.clear_at`."""
    if not _is_plain(vector):
        reference_indexing.clear_at(vector, places)
        return
    _clear(vector.detach().numpy(), places.contiguous().numpy())


def _is_plain(vector: Tensor) -> bool:
    """Return whether a vector is contiguous float32 or float64."""
    return vector.dtype in (torch.float32, torch.float64) and vector.is_contiguous()


@kernel
def _take(vector: Array, places: Numbers, taken: Array) -> None:
    for i in range(places.size):
        taken[i] = vector[np.uint64(places[i])]  # unsigned: no check for an index counted from the end


@kernel
def _add(vector: Array, places: Numbers, values: Array) -> None:
    for i in range(places.size):
        vector[np.uint64(places[i])] += values[i]


@kernel
def _clear(vector: Array, places: Numbers) -> None:
    none = vector.dtype.type(0)
    for i in range(places.size):
        vector[np.uint64(places[i])] = none
