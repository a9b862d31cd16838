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


def take_at(vector: Tensor, indices: Tensor) -> Tensor:
    """See `reference.indexing.take_at`."""
    if not _is_supported(vector):
        return reference_indexing.take_at(vector, indices)
    taken = torch.empty(indices.numel(), dtype=vector.dtype)
    _take(vector.detach().numpy(), indices.contiguous().numpy(), taken.numpy())
    return taken


def add_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """See `reference.indexing.add_at`."""
    if not _is_supported(vector) or values.dtype != vector.dtype:
        reference_indexing.add_at(vector, indices, values)
        return
    _add(vector.detach().numpy(), indices.contiguous().numpy(), values.detach().contiguous().numpy())


def clear_at(vector: Tensor, indices: Tensor) -> None:
    """See `reference.indexing.clear_at`."""
    if not _is_supported(vector):
        reference_indexing.clear_at(vector, indices)
        return
    _clear(vector.detach().numpy(), indices.contiguous().numpy())


def _is_supported(vector: Tensor) -> bool:
    """Return whether a vector is contiguous float32 or float64."""
    return vector.dtype in (torch.float32, torch.float64) and vector.is_contiguous()


@kernel
def _take(vector: Array, indices: Numbers, taken: Array) -> None:
    for i in range(indices.size):
        taken[i] = vector[np.uint64(indices[i])]  # unsigned: no check for an index counted from the end


@kernel
def _add(vector: Array, indices: Numbers, values: Array) -> None:
    for i in range(indices.size):
        vector[np.uint64(indices[i])] += values[i]


@kernel
def _clear(vector: Array, indices: Numbers) -> None:
    none = vector.dtype.type(0)
    for i in range(indices.size):
        vector[np.uint64(indices[i])] = none
