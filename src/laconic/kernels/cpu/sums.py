"""Sums and means of vectors, compiled: one thread, one pass over all of them. Reference: `reference/sums.py`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.block_norms import FLOATS
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.finite import magnitude_of, patterns_of
from laconic.kernels.cpu.flatten import are_contiguous_floats, pointer_to
from laconic.kernels.cpu.llvm.vectors import Codegen, intrinsic
from laconic.kernels.reference import sums as reference_sums

Array = NDArray[Any]

_BLOCK = 1 << 12  # elements that are added up at a time, in the first-level cache


def add_up(vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True) -> float:
    """See `reference.sums.add_up`."""
    if not are_contiguous_floats([*vectors, out], out.dtype):
        return reference_sums.add_up(vectors, out, divisor=divisor, from_zero=from_zero)
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    start = 0.0 if from_zero else -0.0
    return magnitude_of(_add_up(addresses, out.numpy(), *patterns_of(out), float(divisor), start), out.dtype)


def add_up_rings(vectors: Sequence[Tensor], bounds: Sequence[tuple[int, int]], out: Tensor) -> None:
    """See `reference.sums.add_up_rings`."""
    if not are_contiguous_floats([*vectors, out], out.dtype):
        reference_sums.add_up_rings(vectors, bounds, out)
        return
    n, array, (patterns, mask) = len(vectors), out.numpy(), patterns_of(out)
    addresses = np.array([vector.data_ptr() for vector in vectors] * 2, np.uint64)[::-1].copy()
    for k, (start, stop) in enumerate(bounds):
        begins = addresses[n - k :][:n] + np.uint64(start * out.itemsize)  # of vectors k - 1, k - 2, and so on
        if start < stop:
            _add_up(begins, array[start:stop], patterns[start:stop], mask, 1.0, -0.0)


def weighted_sum(vectors: Sequence[Tensor], weights: Sequence[float], out: Tensor) -> Tensor:
    """See `reference.sums.weighted_sum`."""
    if not vectors or not are_contiguous_floats([*vectors, out], out.dtype):
        return reference_sums.weighted_sum(vectors, weights, out)
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    _weighted_sum(addresses, np.array(weights), out.numpy())
    return out


def mixed_difference(
    updated: Tensor, published: Tensor, copies: Sequence[Tensor], weights: Sequence[float], out: Tensor
) -> Tensor:
    """See `reference.sums.mixed_difference`."""
    if not are_contiguous_floats([updated, published, *copies, out], out.dtype):
        return reference_sums.mixed_difference(updated, published, copies, weights, out)
    addresses = np.array([vector.data_ptr() for vector in copies], np.uint64)
    mixed = np.empty(_BLOCK, FLOATS[out.dtype])
    _mixed_difference(updated.numpy(), published.numpy(), addresses, np.array(weights), mixed, out.numpy())
    return out


@intrinsic  # type: ignore[untyped-decorator]
def fused(typing: Any, one: Any, other: Any, more: Any) -> Codegen:  # noqa: ANN401
    """Return one * other + more, rounded once, as torch adds a multiple of a vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        # multiply and add
        return builder.fma(*args)

    return one(one, other, more), codegen


@kernel
def _add_up(addresses: Array, out: Array, patterns: Array, mask: Any, divisor: float, start: float) -> Any:  # noqa: ANN401
    """Add up vectors by blocks. `start` is 0.0 or -0.0, which changes nothing that it is added to.

    Returns the largest of the sum's bits, `patterns`, without their sign, as `finite._largest_pattern`.
    """
    number = out.dtype.type
    by, zero, found = number(divisor), number(start), mask ^ mask
    for at in range(0, out.size, _BLOCK):
        part, bits = out[at : at + _BLOCK], patterns[at : at + _BLOCK]
        one = carray(pointer_to(addresses[0]), out.shape, out.dtype)[at : at + _BLOCK]
        if addresses.size == 1:
            for i in range(part.size):
                part[i] = (one[i] + zero) / by
        elif addresses.size == 2:
            other = carray(pointer_to(addresses[1]), out.shape, out.dtype)[at : at + _BLOCK]
            for i in range(part.size):
                part[i] = (one[i] + zero + other[i]) / by
        else:
            other = carray(pointer_to(addresses[1]), out.shape, out.dtype)[at : at + _BLOCK]
            for i in range(part.size):
                part[i] = one[i] + zero + other[i]
            for number_of in range(2, addresses.size):
                other = carray(pointer_to(addresses[number_of]), out.shape, out.dtype)[at : at + _BLOCK]
                for i in range(part.size):
                    part[i] += other[i]
            for i in range(part.size):
                part[i] /= by
        for i in range(bits.size):
            found = max(found, bits[i] & mask)
    return found


@kernel
def _weighted_sum(addresses: Array, weights: Array, out: Array) -> None:
    """Add up vectors times their weights by blocks, from 0."""
    number = out.dtype.type
    zero = number(0)
    for at in range(0, out.size, _BLOCK):
        part = out[at : at + _BLOCK]
        one, by_one = carray(pointer_to(addresses[0]), out.shape, out.dtype)[at : at + _BLOCK], number(weights[0])
        if addresses.size == 1:
            for i in range(part.size):
                part[i] = fused(one[i], by_one, zero)
            continue
        other, by = carray(pointer_to(addresses[1]), out.shape, out.dtype)[at : at + _BLOCK], number(weights[1])
        for i in range(part.size):
            part[i] = fused(other[i], by, fused(one[i], by_one, zero))
        for number_of in range(2, addresses.size):
            other, by = (
                carray(pointer_to(addresses[number_of]), out.shape, out.dtype)[at : at + _BLOCK],
                number(weights[number_of]),
            )
            for i in range(part.size):
                part[i] = fused(other[i], by, part[i])


@kernel
def _mixed_difference(
    updated: Array, published: Array, addresses: Array, weights: Array, mixed: Array, out: Array
) -> None:
    """Write the difference by blocks. `mixed` (_BLOCK,) has the sum of all weighted vectors but the last."""
    for at in range(0, out.size, _BLOCK):
        part, new, old = out[at : at + _BLOCK], updated[at : at + _BLOCK], published[at : at + _BLOCK]
        mix_block(new, old, addresses, weights, at, mixed, part)


@kernel
def mix_block(
    new: Array, old: Array, addresses: Array, weights: Array, at: int, mixed: Array, part: Array
) -> None:  # fmt: skip
    """Write `reference.sums.mixed_difference` of one block of `new` and `old`, (n,) each, to `part` (n,).

    Args:
        addresses: Where the copies begin.
        weights: One for each.
        at: Index of the block's first element in a copy.
        mixed: At least (n,), overwritten.
        part: Other memory than what is read.
    """
    number = part.dtype.type
    zero, last = number(0), addresses.size - 1
    by_last = number(weights[last])
    some, stop = mixed[: part.size], at + part.size
    one, by = carray(pointer_to(addresses[0]), (stop,), part.dtype)[at:stop], number(weights[0])
    for number_of in range(last):
        if number_of > 0:
            one = carray(pointer_to(addresses[number_of]), (stop,), part.dtype)[at:stop]
            by = number(weights[number_of])
            for i in range(part.size):
                some[i] = fused(one[i], by, some[i])
        elif last > 1:
            for i in range(part.size):
                some[i] = fused(one[i], by, zero)
    final = carray(pointer_to(addresses[last]), (stop,), part.dtype)[at:stop]
    if last == 0:
        for i in range(part.size):
            part[i] = (((new[i] + zero) - old[i]) + fused(final[i], by_last, zero)) - old[i]
    elif last == 1:
        for i in range(part.size):
            total = fused(final[i], by_last, fused(one[i], by, zero))
            part[i] = (((new[i] + zero) - old[i]) + total) - old[i]
    else:
        for i in range(part.size):
            part[i] = (((new[i] + zero) - old[i]) + fused(final[i], by_last, some[i])) - old[i]
