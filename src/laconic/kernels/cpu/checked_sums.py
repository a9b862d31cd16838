"""Sums of vectors with their checksum, compiled: one thread, one pass. Reference: `reference/checked_sums.py`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.finite import magnitude_of, patterns_of
from laconic.kernels.cpu.flatten import are_contiguous_floats, pointer_to
from laconic.kernels.cpu.long_parts import FoldedPart
from laconic.kernels.cpu.passing import TILE_BYTES, How, pass_on
from laconic.kernels.reference import checked_sums as reference_sums

Array = NDArray[Any]


def add_up_with_checksum(
    vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True
) -> tuple[float, int]:
    """See `reference.checked_sums.add_up_with_checksum`."""
    if not are_contiguous_floats([*vectors, out], out.dtype):
        return reference_sums.add_up_with_checksum(vectors, out, divisor=divisor, from_zero=from_zero)
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    folded, start = FoldedPart(out), 0.0 if from_zero else -0.0
    largest = _add_up(addresses, out.numpy(), *patterns_of(out), float(divisor), start, folded.how)
    return magnitude_of(largest, out.dtype), folded.checksum()


@kernel
def _add_up(
    addresses: Array, out: Array, patterns: Array, mask: Any, divisor: float, begin: float, how: How  # noqa: ANN401
) -> Any:  # fmt: skip  # noqa: ANN401 - an integer of the patterns' type
    """Add up vectors by tiles that are passed on. `begin` is 0.0 or -0.0, which changes nothing that it is added to.

    Returns the largest of the bits, `patterns`, without their sign.
    """
    number, found, n, n_tile = out.dtype.type, mask ^ mask, addresses.size, TILE_BYTES // out.itemsize
    by, zero, tile, at, n_before = number(divisor), number(begin), np.empty(n_tile, out.dtype), 0, how[1]
    bits = tile.view(patterns.dtype)
    while at < out.size:
        stop = min(at + n_tile if at or not n_before else n_before, out.size)
        part = tile[: stop - at]
        one = carray(pointer_to(addresses[0]), out.shape, out.dtype)[at:stop]
        other = carray(pointer_to(addresses[min(1, n - 1)]), out.shape, out.dtype)[at:stop]
        if n == 1:
            for i in range(part.size):
                part[i] = (one[i] + zero) / by
        elif n == 2:
            for i in range(part.size):
                part[i] = (one[i] + zero + other[i]) / by
        else:
            for i in range(part.size):
                part[i] = one[i] + zero + other[i]
            for number_of in range(2, n):
                more = carray(pointer_to(addresses[number_of]), out.shape, out.dtype)[at:stop]
                for i in range(part.size):
                    part[i] += more[i]
            for i in range(part.size):
                part[i] /= by
        found = max(found, pass_on(bits[: stop - at], patterns[at:stop], mask, how))
        at = stop
    return found
