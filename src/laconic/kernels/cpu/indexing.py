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

from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.flatten import is_long, pointer_to, spans_of
from laconic.kernels.cpu.llvm.stores import LINE, store_lines
from laconic.kernels.cpu.llvm.vectors import full_blocks, lowest
from laconic.kernels.cpu.steps import rounds_as_torch
from laconic.kernels.cpu.sums import fused
from laconic.kernels.reference import indexing as reference_indexing

Array = NDArray[Any]
Numbers = NDArray[np.int64]

_TILE = 1 << 12  # elements
_WORD = 64  # elements whose comparisons make one word


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


def elements_of(vector: Tensor, limit: int) -> tuple[Tensor, Tensor] | None:
    """See `reference.indexing.elements_of`."""
    if not vector.is_contiguous():
        return reference_indexing.elements_of(vector, limit)
    indices, values = torch.empty(limit + _WORD, dtype=torch.int64), torch.empty(limit + _WORD, dtype=vector.dtype)
    keys = vector.detach().view(reference_indexing.BITS[vector.dtype]).numpy()
    n = int(_elements(keys, indices.numpy(), values.view(reference_indexing.BITS[vector.dtype]).numpy()))
    return None if not 0 <= n <= limit else (indices[:n], values[:n])


def put_at(vector: Tensor, indices: Tensor, values: Tensor) -> None:
    """See `reference.indexing.put_at`."""
    if not _is_supported(vector) or values.dtype != vector.dtype:
        reference_indexing.put_at(vector, indices, values)
        return
    _put(vector.numpy(), indices.contiguous().numpy(), values.detach().contiguous().numpy(), is_long(vector))


def clear_at(vector: Tensor, indices: Tensor) -> None:
    """See `reference.indexing.clear_at`."""
    if not _is_supported(vector):
        reference_indexing.clear_at(vector, indices)
        return
    _clear(vector.detach().numpy(), indices.contiguous().numpy())


def step_at(tensors: Sequence[Tensor], indices: Tensor, values: Tensor, *, factor: float) -> None:
    """See `reference.indexing.step_at`."""
    spans = spans_of(tensors, values)
    if spans is None or not rounds_as_torch(values.dtype):
        reference_indexing.step_at(tensors, indices, values, factor=factor)
        return
    _step_at(*spans, indices.contiguous().numpy(), values.numpy(), factor)


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


@inlined
def _not_zero(keys: Array, at: int) -> Any:  # noqa: ANN401 - numba's own scalar
    """Return a uint64 whose bit k is keys[at + k] != 0, for 64 elements."""
    word = np.uint64(0)
    for k in range(_WORD):
        word |= np.uint64(keys[at + k] != 0) << np.uint64(k)
    return word


@kernel
def _elements(keys: Array, indices: Numbers, values: Array) -> int:
    """Write where keys, the bits of floats, are not 0, and these; return how many, -1 where they are too many."""
    n, full = 0, keys.size // _WORD * _WORD
    for at in range(0, full, _WORD):
        bits = _not_zero(keys, at)
        if bits and n + _WORD > indices.size:
            return -1
        while bits:
            place = at + lowest(bits)
            indices[n] = place
            values[n] = keys[place]
            n += 1
            bits &= bits - np.uint64(1)
    for at in range(full, keys.size):
        if keys[at] != 0:
            if n == indices.size:
                return -1
            indices[n] = at
            values[n] = keys[at]
            n += 1
    return n


@kernel
def _put(vector: Array, indices: Numbers, values: Array, past: bool) -> None:
    """Write zeros, and the values at ascending indices: by tiles, which are made in the first-level cache."""
    tile, n = np.zeros(_TILE, vector.dtype), 0
    start, stop = full_blocks(vector, True) if past else (0, 0)
    for at in range(start):
        vector[at] = 0
    for at in range(start, stop, _TILE):
        end = min(at + _TILE, stop)
        while n < indices.size and indices[n] < at:
            vector[np.uint64(indices[n])] = values[n]
            n += 1
        begin = n
        while n < indices.size and indices[n] < end:
            tile[np.uint64(indices[n] - at)] = values[n]
            n += 1
        store_lines(vector.ctypes.data + at * vector.itemsize, tile.ctypes.data, (end - at) * vector.itemsize // LINE)
        for k in range(begin, n):
            tile[np.uint64(indices[k] - at)] = 0
    for at in range(stop, vector.size):
        vector[at] = 0
    for k in range(n, indices.size):
        vector[np.uint64(indices[k])] = values[k]


@kernel
def _clear(vector: Array, indices: Numbers) -> None:
    none = vector.dtype.type(0)
    for i in range(indices.size):
        vector[np.uint64(indices[i])] = none


@kernel
def _step_at(addresses: Array, sizes: Array, indices: Numbers, values: Array, factor: float) -> None:
    """Add a factor times the values to the elements of tensors at ascending indices of the vector that they make."""
    number, start, stop, by = 0, 0, sizes[0], values.dtype.type(factor)
    tensor = carray(pointer_to(addresses[0]), (sizes[0],), values.dtype)
    for i in range(indices.size):
        while indices[i] >= stop:
            number += 1
            start, stop = stop, stop + sizes[number]
            tensor = carray(pointer_to(addresses[number]), (sizes[number],), values.dtype)
        at = np.uint64(indices[i] - start)
        tensor[at] = fused(values[i], by, tensor[at])
