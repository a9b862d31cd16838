"""Sums and means of vectors, compiled: one thread, one pass over all of them. Reference: `reference/sums.py`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import are_contiguous_floats, pointer_to
from laconic.kernels.reference import sums as reference_sums

Array = NDArray[Any]

_BLOCK = 1 << 12  # elements that are added up at a time, in the first-level cache


def add_up(vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True) -> None:
    """See `reference.sums.add_up`."""
    if not are_contiguous_floats([*vectors, out], out.dtype):
        reference_sums.add_up(vectors, out, divisor=divisor, from_zero=from_zero)
        return
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    _add_up(addresses, out.numpy(), float(divisor), 0.0 if from_zero else -0.0)


@kernel
def _add_up(addresses: Array, out: Array, divisor: float, start: float) -> None:
    """Add up vectors by blocks. `start` is 0.0 or -0.0, which changes nothing that it is added to."""
    number = out.dtype.type
    by, zero = number(divisor), number(start)
    for at in range(0, out.size, _BLOCK):
        part = out[at : at + _BLOCK]
        one = carray(pointer_to(addresses[0]), out.shape, out.dtype)[at : at + _BLOCK]
        if addresses.size == 1:
            for i in range(part.size):
                part[i] = (one[i] + zero) / by
            continue
        other = carray(pointer_to(addresses[1]), out.shape, out.dtype)[at : at + _BLOCK]
        if addresses.size == 2:
            for i in range(part.size):
                part[i] = (one[i] + zero + other[i]) / by
            continue
        for i in range(part.size):
            part[i] = one[i] + zero + other[i]
        for number_of in range(2, addresses.size):
            other = carray(pointer_to(addresses[number_of]), out.shape, out.dtype)[at : at + _BLOCK]
            for i in range(part.size):
                part[i] += other[i]
        for i in range(part.size):
            part[i] /= by
