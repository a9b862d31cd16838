"""What values that have just come make with others, and a look at them, compiled: each tile is read once from memory.

Reference: `reference/landed.py`.
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
from laconic.kernels.cpu.finite import magnitude_of, patterns_of
from laconic.kernels.cpu.flatten import are_contiguous_floats, is_long, pointer_to, uncounted
from laconic.kernels.cpu.llvm.checksums import BLOCK_BYTES
from laconic.kernels.cpu.passing import LINE_BYTES, TILE_BYTES, Folded, How, look_through, pass_on
from laconic.kernels.reference import landed as reference_landed
from laconic.kernels.reference.landed import Landed

Array = NDArray[Any]
Pattern = Any  # an integer of the patterns' type


def sum_landed(
    vectors: Sequence[Tensor], came: int, out: Tensor, *, divisor: int = 1, sends_on: bool = False
) -> Landed:
    """See `reference.landed.sum_landed`."""
    if not are_contiguous_floats([*vectors, out], out.dtype):
        return reference_landed.sum_landed(vectors, came, out, divisor=divisor, sends_on=sends_on)
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    patterns, mask = patterns_of(out)
    read = Folded(vectors[came], is_read=True)
    written = Folded(out) if sends_on else None
    is_exact = math.frexp(divisor)[0] == 0.5  # the inverse of a power of two: a product has the bits of the quotient
    number = out.numpy().dtype.type
    scaled_by = number(1 / divisor if is_exact else 1), number(1 if is_exact else divisor)
    found, made = _sum_landed(
        addresses, came, out.numpy(), patterns, mask, *scaled_by, read.blocks,
        _how_to_pass(out, vectors[0]) if written is None else written.how,
    )  # fmt: skip
    return Landed(
        magnitude_of(found, out.dtype), read.checksum(), magnitude_of(made, out.dtype),
        None if written is None else written.checksum(),
    )  # fmt: skip


def _how_to_pass(out: Tensor, one: Tensor) -> How:
    """Return how a sum is written: past the caches if it is long, and no vector is read from there."""
    past_caches = is_long(out) and out.data_ptr() != one.data_ptr()
    return None, -out.data_ptr() % LINE_BYTES // out.itemsize if past_caches else 0, past_caches


@kernel
def _sum_landed(
    addresses: Array, came: int, out: Array, patterns: Array, mask: Pattern, factor: Any, divisor: Any,  # noqa: ANN401
    folded: Array, how: How,
) -> tuple[Pattern, Pattern]:  # fmt: skip
    """Write the sum by tiles that are passed on, and look through what has come tile by tile.

    Args:
        addresses: Where the vectors begin.
        came: The number of the one that has come.
        out: (d,), overwritten.
        patterns: The same memory as integers.
        mask: All bits of one but the sign.
        factor: What the sums are multiplied by.
        divisor: What they are divided by.
        folded: What blocks of what has come are folded into.
        how: How `out` is passed on.

    Returns:
        The largest bits without their sign of what has come, and of `out`.
    """
    n_tile, n_before, one = TILE_BYTES // out.itemsize, how[1], divisor / divisor
    n_block = BLOCK_BYTES // out.itemsize
    tile, found, made, start, looked = np.empty(n_tile, out.dtype), mask ^ mask, mask ^ mask, 0, 0
    arrived = carray(pointer_to(addresses[came]), patterns.shape, patterns.dtype)
    tile, patterns = uncounted(tile), uncounted(patterns)
    bits = uncounted(tile.view(patterns.dtype))
    while start < out.size:
        stop = min(start + n_tile if start or not n_before else n_before, out.size)
        until = stop if stop == out.size else stop // n_block * n_block
        found = max(found, look_through(arrived[looked:until], mask, folded))
        looked = until
        part = tile[: stop - start]
        _add(addresses, start, part)
        if factor != one:
            for i in range(part.size):
                part[i] *= factor
        elif divisor != one:
            for i in range(part.size):
                part[i] /= divisor
        made = max(made, pass_on(bits[: stop - start], patterns[start:stop], mask, how))
        start = stop
    return found, made


@kernel
def _from(address: Any, start: int, part: Array) -> Array:  # noqa: ANN401
    """Return as many elements of a vector as `part` (n,) has, from `start` on."""
    place = pointer_to(address + uint64(start * part.itemsize))
    found: Array = carray(place, part.shape, part.dtype)
    return found


@kernel
def _add(addresses: Array, start: int, part: Array) -> None:
    """Write the sum of vectors' elements from `start` on to `part` (n,)."""
    x = _from(addresses[0], start, part)
    if addresses.size == 1:
        for i in range(part.size):
            part[i] = x[i]
        return
    y = _from(addresses[1], start, part)
    for i in range(part.size):
        part[i] = x[i] + y[i]
    for number in range(2, addresses.size):
        x = _from(addresses[number], start, part)
        for i in range(part.size):
            part[i] += x[i]
