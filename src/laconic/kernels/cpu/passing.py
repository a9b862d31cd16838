"""Parts of a vector on their way to memory: their largest magnitude, and what their checksum is made of.

A long vector is stored past the caches, since it has left them before it is read again. Blocks are folded for the
checksum (`llvm/checksums.py`); what that leaves, and a rest shorter than a block, is for a library's CRC-32.
"""

import functools
from typing import Any

import numpy as np
from numba import uint64
from numba.core.registry import cpu_target
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.checksums import BLOCK_BYTES, can_fold, pass_blocks
from laconic.kernels.reference.checksums import INVERTED, checksum_of, crc32, shifted

Array = NDArray[Any]
Pattern = Any  # an integer of the patterns' type
How = tuple[Array | None, int, bool]
"""What blocks are folded into, the elements before full lines of 64 bytes, whether to store past the caches."""

TILE_BYTES = 1 << 14
"""What is made of a vector before it is passed on: in the first-level cache."""
_LONG_BYTES = 1 << 23  # from so many on, a vector leaves the caches before it is read again
LINE_BYTES = 64
"""Of the caches; stores past them fill full lines."""


def how_to_pass(out: Tensor) -> How:
    """Return how a vector is written where no checksum is made."""
    past_caches = out.nbytes >= _LONG_BYTES
    return None, -out.data_ptr() % LINE_BYTES // out.itemsize if past_caches else 0, past_caches


class Folded:
    """The checksum of a vector that is written or read by one kernel."""

    def __init__(self, vector: Tensor, *, is_read: bool = False) -> None:
        """`vector`: (d,) contiguous; `is_read`: whether it is only read."""
        self._vector = vector
        self.blocks = np.zeros(BLOCK_BYTES // 8, np.uint64)
        """What blocks are folded into."""
        _, self._n_before, past_caches = (None, 0, False) if is_read else how_to_pass(vector)
        self.how: How = self.blocks, self._n_before, past_caches
        """What the kernel gets."""

    def checksum(self, found: int = 0) -> int:
        """Return the CRC-32 of bytes of which `found` is that of all before the vector's, once the kernel has run."""
        vector, before = self._vector, self._n_before
        if not _can_fold():
            return checksum_of(vector, found)
        found = checksum_of(vector[:before], found) if before else found
        n_bytes = max(vector.nbytes - before * vector.itemsize, 0) // BLOCK_BYTES * BLOCK_BYTES
        remainder = crc32(self.blocks.tobytes(), INVERTED) ^ INVERTED  # of the blocks, after 0
        found = shifted(found ^ INVERTED, n_bytes) ^ remainder ^ INVERTED
        return checksum_of(vector[before + n_bytes // vector.itemsize :], found)


@functools.cache
def _can_fold() -> bool:
    return can_fold(cpu_target.target_context)


@kernel
def pass_on(given: Array, patterns: Array, mask: Pattern, how: How) -> Pattern:
    """Copy `given` (n,) into a part of a vector, `patterns` (n,); fold what makes blocks, and no rest.

    Returns the largest of the bits without their sign.
    """
    folded, _, past = how
    n, source, target = patterns.nbytes // BLOCK_BYTES, uint64(given.ctypes.data), uint64(patterns.ctypes.data)
    if past:
        found = pass_blocks(source, target, n, mask, folded, 1)
    else:
        found = pass_blocks(source, target, n, mask, folded, None)
    for i in range(n * BLOCK_BYTES // patterns.itemsize, patterns.size):
        patterns[i] = given[i]
        found = max(found, given[i] & mask)
    return found


@kernel
def look_through(patterns: Array, mask: Pattern, folded: Array) -> Pattern:
    """Read a vector, and fold its blocks. Returns the largest of the bits without their sign."""
    n = patterns.nbytes // BLOCK_BYTES
    found = pass_blocks(uint64(patterns.ctypes.data), None, n, mask, folded, None)
    for i in range(n * BLOCK_BYTES // patterns.itemsize, patterns.size):
        found = max(found, patterns[i] & mask)
    return found
