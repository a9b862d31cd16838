"""A flat vector and the tensors that it is made of, compiled: one thread, one pass, the same bits.

Reference: `reference/flatten.py`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import int64, uint32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.checked_tensors import CheckedTensors, Spans
from laconic.kernels.checks import FLOATS, is_plain
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.finite import magnitude_of, patterns_of
from laconic.kernels.cpu.llvm.vectors import ALL, Codegen, Words, intrinsic, peek, put_signs_at, types
from laconic.kernels.cpu.mask_streams import padded
from laconic.kernels.cpu.passing import LINE_BYTES, TILE_BYTES, How, how_to_pass, pass_on
from laconic.kernels.reference import flatten as reference_flatten
from laconic.kernels.reference.finite import max_quotient

Array = NDArray[Any]

PAST_CACHES_BYTES = 1 << 20  # from so many on, a vector leaves the caches before it is read again: a step lies between


def gather(tensors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, limit: float | None = None) -> bool:
    """See `reference.flatten.gather`."""
    spans = spans_of(tensors, out)
    if spans is None:
        return reference_flatten.gather(tensors, out, divisor=divisor, limit=limit)
    if divisor != 1:
        return bool(_gather_shares(*spans, out.numpy(), float(divisor), max_quotient(out.dtype, divisor)))
    largest = gather_largest(tensors, out)
    return math.isfinite(largest) if limit is None else largest <= limit


def gather_largest(tensors: Sequence[Tensor], out: Tensor) -> float:
    """See `reference.flatten.gather_largest`."""
    spans = spans_of(tensors, out)
    if spans is None:
        return reference_flatten.gather_largest(tensors, out)
    return magnitude_of(gather_tiles(*spans, *patterns_of(out), how_to_pass(out)), out.dtype)


def equals(tensors: Sequence[Tensor], vector: Tensor) -> bool:
    """See `reference.flatten.equals`."""
    spans = spans_of(tensors, vector)
    if spans is None:
        return reference_flatten.equals(tensors, vector)
    return bool(_equals(*spans, patterns_of(vector)[0]))


def gather_change(tensors: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """See `reference.flatten.gather_change`."""
    others = [start] if plus is None else [start, plus]
    spans = spans_of(tensors, out)
    if spans is None or not are_contiguous_floats(others, out.dtype):
        return reference_flatten.gather_change(tensors, start, out, plus)
    arrays = start.numpy(), others[-1].numpy(), out.numpy()
    return bool(_gather_change(*spans, *arrays, plus is not None))


def gather_scaled(
    tensors: Sequence[Tensor],
    factors: Sequence[float],
    out: Tensor,
    plus: Tensor | Sequence[Tensor] | None = None,
    *,
    divisor: int = 1,
) -> bool:
    """See `reference.flatten.gather_scaled`."""
    spans = spans_of(tensors, out)
    added = _addresses_in(plus, out, spans)
    if spans is None or added is None:
        return reference_flatten.gather_scaled(tensors, factors, out, plus, divisor=divisor)
    limit = torch.finfo(out.dtype).max if divisor == 1 else max_quotient(out.dtype, divisor)
    return bool(_gather_scaled(*spans, np.array(factors), added, out.numpy(), float(divisor), limit))


def _addresses_in(plus: Tensor | Sequence[Tensor] | None, out: Tensor, spans: Spans | None) -> Array | None:
    """Return where the elements to add to each tensor are, none for no `plus`; None where a kernel cannot read them."""
    if plus is None or spans is None:
        return np.zeros(0, np.uint64)
    if isinstance(plus, Tensor):
        if not are_contiguous_floats([plus], out.dtype):
            return None
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(spans[1])[:-1]])
        return (plus.data_ptr() + before * out.itemsize).astype(np.uint64)
    others = spans_of(plus, out)
    return others[0] if others is not None and np.array_equal(others[1], spans[1]) else None


def add_into(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """See `reference.flatten.add_into`."""
    spans = spans_of(tensors, values)
    if spans is None:
        reference_flatten.add_into(tensors, indices, values)
        return
    _add_into(*spans, indices.contiguous().numpy(), values.numpy())


def scatter(vector: Tensor, tensors: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """See `reference.flatten.scatter`."""
    spans = spans_of(tensors, vector)
    if spans is None:
        reference_flatten.scatter(vector, tensors, as_sum=as_sum)
        return
    if how_to_pass(vector)[2] and not as_sum:
        _scatter_past_caches(*spans, *patterns_of(vector))
    else:
        _scatter(*spans, vector.numpy(), as_sum)


def scatter_packed_signs(packed: Tensor, factors: Sequence[float], tensors: Sequence[Tensor]) -> None:
    """See `reference.flatten.scatter_packed_signs`."""
    spans = spans_of(tensors, tensors[0]) if tensors else None
    if spans is None:
        reference_flatten.scatter_packed_signs(packed, factors, tensors)
        return
    sizes = np.array(factors, np.float32 if tensors[0].dtype is torch.float32 else np.float64)
    _scatter_packed_signs(*spans, padded(packed, int(spans[1].sum())), sizes)


def spans_of(tensors: Sequence[Tensor], vector: Tensor) -> Spans | None:
    """Return where tensors are, if they and the vector are plain, contiguous, and float32 or float64; else None.

    `checks` has seen that the vector is plain and all have memory, and looks again at tensors that it has seen before.
    """
    if vector.dtype not in FLOATS or not vector.is_contiguous() or not vector.is_cpu:
        return None
    checked = tensors if type(tensors) is CheckedTensors else CheckedTensors(tensors)
    if checked.spans is None and not checked.look():
        return None
    return checked.spans if checked.dtype is vector.dtype else None


def are_contiguous_floats(tensors: Sequence[Tensor], dtype: torch.dtype) -> bool:
    """Return whether all are plain and contiguous, in the CPU's memory, and all float32, or all float64: `dtype`."""
    if dtype not in FLOATS:
        return False
    for tensor in tensors:
        if tensor.dtype is not dtype or not tensor.is_contiguous() or not is_plain(tensor) or not tensor.is_cpu:
            return False
    return True


def is_long(vector: Tensor) -> bool:
    """Return whether a vector is stored past the caches."""
    return vector.nbytes >= PAST_CACHES_BYTES


@intrinsic  # type: ignore[untyped-decorator]
def pointer_to(typing: Any, address: Any) -> Codegen:  # noqa: ANN401
    """Return an address, uint64, as a pointer that `carray` takes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        # integer -> pointer
        return builder.inttoptr(args[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.uint64), codegen


@kernel
def uncounted(array: Array) -> Array:
    """Return an array's memory as another one: for its slices no references are counted, which costs as a tile does."""
    seen: Array = carray(pointer_to(uint64(array.ctypes.data)), array.shape, array.dtype)
    return seen


@kernel
def gather_tiles(addresses: Array, sizes: Array, patterns: Array, mask: Any, how: How) -> Any:  # noqa: ANN401 - an integer
    """Copy tensors into a vector, as bits, by tiles: from where they are, or put together in a buffer.

    Returns the largest of the bits without their sign, as `finite._largest_pattern`.
    """
    found, n_tile, n_before = mask ^ mask, TILE_BYTES // patterns.itemsize, how[1]
    buffer, number, at, start = np.empty(n_tile, patterns.dtype), 0, 0, 0
    while start < patterns.size:
        while start >= at + sizes[number]:
            at, number = at + sizes[number], number + 1
        n_more = at + sizes[number] - start
        stop = start + max(n_more // n_tile, 1) * n_tile if start or not n_before else n_before
        stop = min(stop, patterns.size)  # of all full tiles of a tensor
        if stop - start <= n_more:
            one = carray(pointer_to(addresses[number]), (sizes[number],), patterns.dtype)
            found = max(found, pass_on(one[start - at : stop - at], patterns[start:stop], mask, how))
            start = stop
            continue
        place = start
        while place < stop:
            while place >= at + sizes[number]:
                at, number = at + sizes[number], number + 1
            end = min(stop, at + sizes[number])
            one = carray(pointer_to(addresses[number]), (sizes[number],), patterns.dtype)[place - at : end - at]
            part = buffer[place - start : end - start]
            for i in range(part.size):
                part[i] = one[i]
            place = end
        found = max(found, pass_on(buffer[: stop - start], patterns[start:stop], mask, how))
        start = stop
    return found


_BLOCK = 1 << 12  # elements that are compared before a difference ends it


@kernel
def _equals(addresses: Array, sizes: Array, patterns: Array) -> bool:
    """Return whether tensors have the bits of a vector."""
    at = 0
    for i in range(sizes.size):
        part, one = patterns[at : at + sizes[i]], carray(pointer_to(addresses[i]), (sizes[i],), patterns.dtype)
        for start in range(0, part.size, _BLOCK):
            left, right = part[start : start + _BLOCK], one[start : start + _BLOCK]
            differs = patterns.dtype.type(0)
            for k in range(left.size):
                differs |= left[k] ^ right[k]
            if differs:
                return False
        at += sizes[i]
    return True


@kernel
def _gather_shares(addresses: Array, sizes: Array, out: Array, divisor: float, limit_: float) -> bool:
    """Copy tensors into `out`, divided. Returns whether no quotient is NaN or beyond the limit."""
    by, limit, wrong, at = out.dtype.type(divisor), out.dtype.type(limit_), uint32(0), 0
    for i in range(sizes.size):
        part, one = out[at : at + sizes[i]], carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        for k in range(part.size):
            value = one[k] / by
            part[k] = value
            wrong |= uint32(not (abs(value) <= limit))
        at += sizes[i]
    return bool(wrong == uint32(0))


@kernel
def _gather_change(addresses: Array, sizes: Array, start: Array, plus: Array, out: Array, adds: bool) -> bool:
    """Write tensors less `start`, plus `plus` where `adds`. Returns whether no element is inf or NaN."""
    wrong, none, at = uint32(0), out.dtype.type(0), 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, before, more = out[at:end], start[at:end], plus[at:end]
        one = carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        if adds:
            for k in range(part.size):
                value = one[k] - before[k] + more[k]
                part[k] = value
                wrong |= uint32(value - value != none)
        else:
            for k in range(part.size):
                value = one[k] - before[k]
                part[k] = value
                wrong |= uint32(value - value != none)
        at = end
    return bool(wrong == uint32(0))


@kernel
def _gather_scaled(
    addresses: Array, sizes: Array, factors: Array, added: Array, out: Array, divisor: float, limit_: float
) -> bool:
    """Write each tensor times its factor, plus what is at `added` if that is not empty, divided.

    Returns whether no element is NaN or beyond the limit.
    """
    number = out.dtype.type
    by_all, limit, wrong, none, at = number(divisor), number(limit_), uint32(0), number(0), 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, one = out[at:end], carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        by = number(factors[i])
        if added.size:
            more = carray(pointer_to(added[i]), (sizes[i],), out.dtype)
            for k in range(part.size):
                value = (one[k] * by + more[k]) / by_all
                part[k] = value
                wrong |= uint32(not (abs(value) <= limit))
        else:
            for k in range(part.size):
                value = (one[k] * by + none) / by_all
                part[k] = value
                wrong |= uint32(not (abs(value) <= limit))
        at = end
    return bool(wrong == uint32(0))


@kernel
def _add_into(addresses: Array, sizes: Array, indices: Array, values: Array) -> None:
    """Add values to tensors at ascending indices of the vector that they make."""
    number, start, stop = 0, 0, sizes[0]
    tensor = carray(pointer_to(addresses[0]), (sizes[0],), values.dtype)
    for i in range(indices.size):
        while indices[i] >= stop:
            number += 1
            start, stop = stop, stop + sizes[number]
            tensor = carray(pointer_to(addresses[number]), (sizes[number],), values.dtype)
        tensor[uint64(indices[i] - start)] += values[i]


@kernel
def _scatter(addresses: Array, sizes: Array, vector: Array, as_sum: bool) -> None:
    """Copy `vector` into tensors; as_sum adds 0.0."""
    none, at = vector.dtype.type(0), 0
    for i in range(sizes.size):
        part, out = vector[at : at + sizes[i]], carray(pointer_to(addresses[i]), (sizes[i],), vector.dtype)
        if as_sum:
            for k in range(part.size):
                out[k] = part[k] + none
        else:
            for k in range(part.size):
                out[k] = part[k]
        at += sizes[i]


@kernel
def _scatter_packed_signs(addresses: Array, sizes: Array, words: Words, factors: Array) -> None:
    """Write -factor or +factor to each element of tensors, by one bit each of a stream: a set bit means minus."""
    at, last = 0, np.empty(64, factors.dtype)
    for i in range(sizes.size):
        out, factor = carray(pointer_to(addresses[i]), (sizes[i],), factors.dtype), factors[i]
        full = out.size // 64 * 64
        for place in range(0, full, 64):
            put_signs_at(out, place, peek(words, at + place), ALL, factor)
        rest = out.size - full
        if rest:
            put_signs_at(last, 0, peek(words, at + full), ALL, factor)
            out[full:] = last[:rest]
        at += out.size


@kernel
def _scatter_past_caches(addresses: Array, sizes: Array, patterns: Array, mask: Any) -> None:  # noqa: ANN401
    """Copy a vector, as bits, into tensors, past the caches from their first full line of 64 bytes on."""
    at = 0
    for i in range(sizes.size):
        out = carray(pointer_to(addresses[i]), (sizes[i],), patterns.dtype)
        part, line = patterns[at : at + sizes[i]], uint64(LINE_BYTES)
        n_before = min(int64((line - addresses[i] % line) % line) // patterns.itemsize, out.size)
        for k in range(n_before):
            out[k] = part[k]
        pass_on(part[n_before:], out[n_before:], mask, (None, 0, True))
        at += sizes[i]
