"""Squared distances of vectors that tensors make, compiled: one thread, one pass. Reference: `reference/distances.py`.

Differences are written to a tile in the first-level cache, whose squares are then added in four chains of eight lanes.
Tiles follow the vector, so that the sum does not depend on how tensors split it. Where the sum is above a limit, it is
returned as it is: more squares would not make it less.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import is_long, pointer_to, spans_of
from laconic.kernels.cpu.llvm.reductions import RUN, run_squares
from laconic.kernels.cpu.llvm.stores import LINE, store_lines
from laconic.kernels.reference import distances as reference_distances

Array = NDArray[Any]

_TILE = 1024  # elements; a multiple of RUN


def squared_distance(tensors: Sequence[Tensor], others: Sequence[Tensor], *, limit: float = math.inf) -> float:
    """See `reference.distances.squared_distance`."""
    spans, more = (spans_of(given, given[0]) if given else None for given in (tensors, others))
    if spans is None or more is None or tensors[0].dtype is not others[0].dtype:
        return reference_distances.squared_distance(tensors, others, limit=limit)
    return float(_distance(*spans, *more, tensors[0].detach().numpy().reshape(-1)[:0], limit, False))


def gather_distance(tensors: Sequence[Tensor], other: Tensor, out: Tensor) -> float:
    """See `reference.distances.gather_distance`."""
    spans, more = spans_of(tensors, out), spans_of([other], out)
    if spans is None or more is None:
        return reference_distances.gather_distance(tensors, other, out)
    return float(_distance(*spans, *more, out.numpy(), math.inf, is_long(out)))


@kernel
def _distance(
    addresses: Array, sizes: Array, other_addresses: Array, other_sizes: Array, out: Array, limit: float, past: bool
) -> Any:  # noqa: ANN401 - float64
    """Return the squared distance, or what is above the limit; copy the tensors to `out` unless that is empty.

    With `past`, they are copied past the caches.
    """
    d, item, address = sizes.sum(), out.itemsize, out.ctypes.data
    tile, one = np.empty(_TILE, out.dtype), out.dtype.type(1)
    total, n, at = 0.0, 0, 0
    i, j, begin, other_begin = 0, 0, 0, 0  # tensors, and where they go on
    while at < d:
        while begin == sizes[i]:
            i, begin = i + 1, 0
        while other_begin == other_sizes[j]:
            j, other_begin = j + 1, 0
        size = min(_TILE - n, sizes[i] - begin, other_sizes[j] - other_begin)
        x = carray(pointer_to(addresses[i] + uint64(begin * item)), (size,), out.dtype)
        y = carray(pointer_to(other_addresses[j] + uint64(other_begin * item)), (size,), out.dtype)
        differences = tile[n : n + size]
        for k in range(size):
            differences[k] = x[k] - y[k]
        if out.size:
            n_lines = size * item // LINE if past and (address + at * item) % LINE == 0 else 0
            store_lines(address + at * item, x.ctypes.data, n_lines)
            for k in range(n_lines * LINE // item, size):
                out[at + k] = x[k]
        n, at, begin, other_begin = n + size, at + size, begin + size, other_begin + size
        if n == _TILE:
            total += run_squares(tile.ctypes.data, _TILE // RUN, one)
            n = 0
            if total > limit:
                return total
    for k in range(n):
        total += np.float64(tile[k]) * np.float64(tile[k])
    return total
