"""Vectors that are stored past the caches: a kernel writes each tile to a buffer, which is copied from there."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.block_norms import FLOATS
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import is_long
from laconic.kernels.cpu.llvm.stores import LINE, store_lines

Array = NDArray[Any]


def tile_buffer(out: Tensor, size: int) -> Array:
    """Return a buffer for tiles of a vector: (size,) of its type; (0,) where it is not stored past the caches.

    Args:
        out: (d,) float32 or float64, contiguous.
        size: Elements of a tile, which fill lines of 64 bytes.
    """
    is_past = is_long(out) and out.data_ptr() % LINE == 0
    return np.empty(size if is_past else 0, FLOATS[out.dtype])


@kernel
def store_past_caches(part: Array, out: Array) -> None:
    """Copy a tile (n,) to `out` (n,) past the caches, but for a rest of less than a line.

    Args:
        part: Floats.
        out: Floats of the same type, at a multiple of 64 bytes.
    """
    each = LINE // part.itemsize
    n = part.size // each
    store_lines(out.ctypes.data, part.ctypes.data, n)
    for i in range(n * each, part.size):
        out[i] = part[i]
