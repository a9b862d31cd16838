"""Elements at some indices, compiled, on one thread: many cache lines are fetched at a time.

Reference: `reference/indexing.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to, spans_of
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


def take_from(tensors: Sequence[Tensor], indices: Tensor) -> Tensor:
    """See `reference.indexing.take_from`."""
    taken = torch.empty(indices.numel(), dtype=tensors[0].dtype)
    spans = spans_of(tensors, taken)
    if spans is None:
        return reference_indexing.take_from(tensors, indices)
    _take_from(*spans, indices.contiguous().numpy(), taken.numpy())
    return taken


def set_at(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """See `reference.indexing.set_at`."""
    spans = spans_of(tensors, values)
    if spans is None:
        reference_indexing.set_at(tensors, indices, values)
        return
    _set_at(*spans, indices.contiguous().numpy(), values.numpy())


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


@kernel
def _take_from(addresses: Array, sizes: Array, indices: Numbers, taken: Array) -> None:
    """Write the elements of tensors at ascending indices of the vector that they make."""
    number, start, stop = 0, 0, sizes[0]
    tensor = carray(pointer_to(addresses[0]), (sizes[0],), taken.dtype)
    for i in range(indices.size):
        while indices[i] >= stop:
            number += 1
            start, stop = stop, stop + sizes[number]
            tensor = carray(pointer_to(addresses[number]), (sizes[number],), taken.dtype)
        taken[i] = tensor[np.uint64(indices[i] - start)]


@kernel
def _set_at(addresses: Array, sizes: Array, indices: Numbers, values: Array) -> None:
    """Overwrite the elements of tensors at ascending indices of the vector that they make."""
    number, start, stop = 0, 0, sizes[0]
    tensor = carray(pointer_to(addresses[0]), (sizes[0],), values.dtype)
    for i in range(indices.size):
        while indices[i] >= stop:
            number += 1
            start, stop = stop, stop + sizes[number]
            tensor = carray(pointer_to(addresses[number]), (sizes[number],), values.dtype)
        tensor[np.uint64(indices[i] - start)] = values[i]
