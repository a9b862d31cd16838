"""Steps of plain SGD, compiled: one thread, one pass, the bits of torch's. Reference: `reference/steps.py`."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.block_norms import FLOATS, bits_of, ends_of_keys, keys_in
from laconic.kernels.cpu.code_tiles import TILE
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.finite import magnitude_of, patterns_of
from laconic.kernels.cpu.flatten import are_contiguous_floats, pointer_to, spans_of, uncounted
from laconic.kernels.cpu.long_parts import FoldedPart
from laconic.kernels.cpu.passing import TILE_BYTES, Folded, How, pass_on
from laconic.kernels.cpu.past_caches import store_past_caches, tile_buffer
from laconic.kernels.cpu.sums import fused, mix_block
from laconic.kernels.reference import steps as reference_steps

Array = NDArray[Any]
Pattern = Any  # an integer of the patterns' type

_BLOCK = 1 << 12  # elements that are looked at together, in the first-level cache


def step_along_mean(values: Tensor, vectors: Sequence[Tensor], *, divisor: int, lr: float) -> None:
    """See `reference.steps.step_along_mean`."""
    if not are_contiguous_floats([*vectors, values], values.dtype) or not rounds_as_torch(values.dtype):
        reference_steps.step_along_mean(values, vectors, divisor=divisor, lr=lr)
        return
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    _step_along_mean(addresses, values.detach().numpy(), float(divisor), -lr)


def gather_step(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float], out: Tensor, *, adds: bool
) -> tuple[float, int]:
    """See `reference.steps.gather_step`."""
    spans, more = spans_of(tensors, out), spans_of(gradients, out)
    is_plain = spans is not None and more is not None and np.array_equal(spans[1], more[1])
    if spans is None or more is None or not is_plain or not rounds_as_torch(out.dtype):
        return reference_steps.gather_step(tensors, gradients, factors, out, adds=adds)
    folded, alphas = Folded(out), np.array(factors)
    found = _gather_step(*spans, more[0], alphas, out.numpy(), *patterns_of(out), adds, folded.how)
    return magnitude_of(found, out.dtype), folded.checksum()


def gather_mean_step(
    tensors: Sequence[Tensor], factors: Sequence[float], vectors: Sequence[Tensor], out: Tensor, *, divisor: int
) -> tuple[float, int]:
    """See `reference.steps.gather_mean_step`."""
    spans = spans_of(tensors, out)
    if spans is None or not are_contiguous_floats(vectors, out.dtype) or not rounds_as_torch(out.dtype):
        return reference_steps.gather_mean_step(tensors, factors, vectors, out, divisor=divisor)
    addresses = np.array([vector.data_ptr() for vector in vectors], np.uint64)
    folded, alphas = FoldedPart(out), np.array(factors)
    found = _gather_mean_step(*spans, alphas, addresses, out.numpy(), *patterns_of(out), float(divisor), folded.how)
    return magnitude_of(found, out.dtype), folded.checksum()


def step_difference(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float], published: Tensor,
    copies: Sequence[Tensor], weights: Sequence[float], out: Tensor,
) -> tuple[float, tuple[Tensor, Tensor]]:  # fmt: skip
    """See `reference.steps.step_difference`."""
    spans, more = spans_of(tensors, out), spans_of(gradients, out)
    is_plain = spans is not None and more is not None and np.array_equal(spans[1], more[1])
    if (
        spans is None or more is None or not is_plain or not rounds_as_torch(out.dtype)
        or not are_contiguous_floats([published, *copies, out], out.dtype)
    ):  # fmt: skip
        return reference_steps.step_difference(tensors, gradients, factors, published, copies, weights, out)
    addresses = np.array([vector.data_ptr() for vector in copies], np.uint64)
    stepped, mixed = (np.empty(TILE, FLOATS[out.dtype]) for _ in range(2))
    found, low, high = _step_difference(
        *spans, more[0], np.array(factors), published.numpy(), addresses, np.array(weights), stepped, mixed,
        tile_buffer(out, TILE), out.numpy(), *bits_of(out),
    )  # fmt: skip
    return magnitude_of(found, out.dtype), ends_of_keys([(low, high)], out.dtype)


@functools.cache
def rounds_as_torch(dtype: torch.dtype) -> bool:
    """Return whether torch adds a multiple of a vector as `fused` does: not on processors without that instruction."""
    random = torch.Generator().manual_seed(0)
    values, vector = (torch.randn(67, generator=random, dtype=dtype) for _ in range(2))  # with a rest, however wide
    expected = values.add(vector, alpha=-0.1)
    _step_along_mean(np.array([vector.data_ptr()], np.uint64), values.numpy(), 1.0, -0.1)
    return torch.equal(values, expected)


@kernel
def _step_along_mean(addresses: Array, values: Array, divisor: float, factor: float) -> None:
    """Add the sum of vectors from 0, divided, times a factor."""
    number = values.dtype.type
    by, alpha, zero, n = number(divisor), number(factor), number(0), addresses.size
    total = np.empty(_BLOCK, values.dtype)
    for at in range(0, values.size, _BLOCK):
        out = values[at : at + _BLOCK]
        one = carray(pointer_to(addresses[0]), values.shape, values.dtype)[at : at + _BLOCK]
        if n == 1:
            for i in range(out.size):
                out[i] = fused((one[i] + zero) / by, alpha, out[i])
            continue
        part = total[: out.size]
        for i in range(out.size):
            part[i] = one[i] + zero
        for number_of in range(1, n):
            other = carray(pointer_to(addresses[number_of]), values.shape, values.dtype)[at : at + _BLOCK]
            for i in range(out.size):
                part[i] += other[i]
        for i in range(out.size):
            out[i] = fused(part[i] / by, alpha, out[i])


@kernel
def _gather_mean_step(
    tensors: Array, sizes: Array, factors: Array, addresses: Array, out: Array, patterns: Array, mask: Pattern,
    divisor: float, how: How,
) -> Pattern:  # fmt: skip
    """Write tensors plus the sum of vectors from 0, divided, times a factor, by tiles that are passed on.

    Up to four are added in registers. Returns the largest of the bits, `patterns`, without their sign.
    """
    number, found, n, n_tile = out.dtype.type, mask ^ mask, addresses.size, TILE_BYTES // out.itemsize
    by, zero, sums, tile = number(divisor), number(0), np.empty(n_tile, out.dtype), np.empty(n_tile, out.dtype)
    k, at, start, n_before, bits = 0, 0, 0, how[1], tile.view(patterns.dtype)
    while start < out.size:
        stop, place = min(start + n_tile if start or not n_before else n_before, out.size), start
        while place < stop:
            while place >= at + sizes[k]:
                at, k = at + sizes[k], k + 1
            end = min(stop, at + sizes[k])
            alpha, part = number(factors[k]), tile[place - start : end - start]
            x = carray(pointer_to(tensors[k]), (sizes[k],), out.dtype)[place - at : end - at]
            one = carray(pointer_to(addresses[0]), out.shape, out.dtype)[place:end]
            two = carray(pointer_to(addresses[min(1, n - 1)]), out.shape, out.dtype)[place:end]
            if n == 1:
                for i in range(part.size):
                    part[i] = fused((one[i] + zero) / by, alpha, x[i])
            elif n == 2:
                for i in range(part.size):
                    part[i] = fused((one[i] + zero + two[i]) / by, alpha, x[i])
            elif n == 4:
                three = carray(pointer_to(addresses[2]), out.shape, out.dtype)[place:end]
                four = carray(pointer_to(addresses[3]), out.shape, out.dtype)[place:end]
                for i in range(part.size):
                    part[i] = fused((one[i] + zero + two[i] + three[i] + four[i]) / by, alpha, x[i])
            else:
                total = sums[: part.size]
                for i in range(part.size):
                    total[i] = one[i] + zero + two[i]
                for number_of in range(2, n):
                    other = carray(pointer_to(addresses[number_of]), out.shape, out.dtype)[place:end]
                    for i in range(part.size):
                        total[i] += other[i]
                for i in range(part.size):
                    part[i] = fused(total[i] / by, alpha, x[i])
            place = end
        found = max(found, pass_on(bits[: stop - start], patterns[start:stop], mask, how))
        start = stop
    return found


@kernel
def _gather_step(
    addresses: Array, sizes: Array, gradients: Array, factors: Array, out: Array, patterns: Array, mask: Pattern,
    adds: bool, how: How,
) -> Pattern:  # fmt: skip
    """Write what a step adds to tensors, and the tensors too where `adds`, by tiles that are passed on.

    Returns the largest of the bits, `patterns`, without their sign.
    """
    number, found, n_tile, k, at, start = out.dtype.type, mask ^ mask, TILE_BYTES // out.itemsize, 0, 0, 0
    tile, n_before = np.empty(n_tile, out.dtype), how[1]
    bits = tile.view(patterns.dtype)
    while start < out.size:
        stop, place = min(start + n_tile if start or not n_before else n_before, out.size), start
        while place < stop:
            while place >= at + sizes[k]:
                at, k = at + sizes[k], k + 1
            end, by = min(stop, at + sizes[k]), number(factors[k])
            part = tile[place - start : end - start]
            x = carray(pointer_to(addresses[k]), (sizes[k],), out.dtype)[place - at : end - at]
            g = carray(pointer_to(gradients[k]), (sizes[k],), out.dtype)[place - at : end - at]
            if adds:
                for i in range(part.size):
                    part[i] = fused(g[i], by, x[i]) - x[i] + x[i]
            else:
                for i in range(part.size):
                    part[i] = fused(g[i], by, x[i]) - x[i]
            place = end
        found = max(found, pass_on(bits[: stop - start], patterns[start:stop], mask, how))
        start = stop
    return found


@kernel
def _step_difference(
    tensors: Array, sizes: Array, gradients: Array, factors: Array, published: Array, addresses: Array, weights: Array,
    stepped: Array, mixed: Array, buffer: Array, out: Array, keys: Array, mask: Pattern,
) -> tuple[Pattern, Pattern, Pattern]:  # fmt: skip
    """Write the difference tile by tile. Returns the largest bits of what was stepped to, and the ends as keys.

    Args:
        tensors: Addresses of the tensors that step.
        sizes: Their numbers of elements.
        gradients: Addresses of as many gradients.
        factors: One for each.
        published: (d,).
        addresses: Where the copies begin.
        weights: One for each.
        stepped: (TILE,), overwritten.
        mixed: The same.
        buffer: A tile_buffer of `out`.
        out: (d,), overwritten.
        keys: The same memory as integers.
        mask: All bits of one but the sign.
    """
    number, found, low_key, high_key = out.dtype.type, mask ^ mask, mask, ~mask
    stepped, buffer, out = uncounted(stepped), uncounted(buffer), uncounted(out)
    patterns, its_keys = uncounted(stepped.view(keys.dtype)), uncounted(buffer.view(keys.dtype))
    published, mixed, keys = uncounted(published), uncounted(mixed), uncounted(keys)
    k, begin = 0, 0  # the tensor, and where it begins
    for tile in range(0, out.size, TILE):
        last = min(tile + TILE, out.size)
        at = tile
        while at < last:
            until = min(last, begin + sizes[k])
            by, start = number(factors[k]), uint64((at - begin) * out.itemsize)
            x = carray(pointer_to(tensors[k] + start), (until - at,), out.dtype)
            g = carray(pointer_to(gradients[k] + start), (until - at,), out.dtype)
            part = stepped[at - tile : until - tile]
            for i in range(part.size):
                part[i] = fused(g[i], by, x[i]) - x[i] + x[i]
            at = until
            while k + 1 < sizes.size and at >= begin + sizes[k]:
                begin += sizes[k]
                k += 1
        bits = patterns[: last - tile]
        for i in range(bits.size):
            found = max(found, bits[i] & mask)
        made = buffer[: last - tile] if buffer.size else out[tile:last]
        mix_block(stepped[: last - tile], published[tile:last], addresses, weights, tile, mixed, made)
        if buffer.size:
            low_key, high_key = keys_in(its_keys[: last - tile], mask, low_key, high_key)
            store_past_caches(made, out[tile:last])
        else:
            low_key, high_key = keys_in(keys[tile:last], mask, low_key, high_key)
    return found, low_key, high_key
