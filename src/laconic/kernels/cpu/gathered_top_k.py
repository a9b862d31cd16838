"""A vector made of tensors, and the largest magnitudes of its blocks, compiled: one pass over all.

Reference: `reference/gathered_top_k.py`.

While it writes the vector, the pass collects what reaches a guess: about the magnitude that the block's last selection
ended at. If at least k elements do, the k largest are among these; else the block is read again, as `top_k` reads it.
Where the buffer is full, all but the k largest so far are dropped, and what is no larger is not collected from then on.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import int64, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu import flatten, top_k
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import are_contiguous_floats, pointer_to, spans_of
from laconic.kernels.cpu.llvm.gathered_top_k import scaled_at
from laconic.kernels.cpu.llvm.vectors import lowest
from laconic.kernels.cpu.threads import is_split
from laconic.kernels.cpu.top_k import (
    MAX_SAMPLE,
    Keys,
    Positions,
    kth_largest,
    largest_of,
    max_candidates,
    take_candidates,
)
from laconic.kernels.reference.gathered_top_k import Guesses

Array = NDArray[Any]

_CANDIDATES = 4  # times as many as are taken have room
_OCTAVES: dict[Any, Any] = {np.int32: 1 << 23, np.int64: 1 << 52}  # a factor of 2, as bits


def gather_top_k(
    tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None,
    blocks: Sequence[tuple[int, int]], guesses: Guesses,
) -> tuple[bool, Tensor]:  # fmt: skip
    """See `reference.gathered_top_k.gather_top_k`."""
    spans = spans_of(tensors, out)
    is_plain = spans is not None and are_contiguous_floats([] if plus is None else [plus], out.dtype)
    if not is_plain or spans is None or any(is_split(length) for length, _ in blocks):
        is_finite = flatten.gather_scaled(tensors, factors, out, plus)
        return is_finite, top_k.top_k_by_block(out, blocks)
    integer = np.int32 if out.dtype is torch.float32 else np.int64
    sizes, n, capacity, mask = _planned(tuple(blocks), integer)
    if guesses.magnitudes.size != len(blocks):
        guesses.magnitudes = np.full(len(blocks), mask, np.int64)  # which nothing reaches
    values, past = out.numpy(), flatten.is_long(out)
    more = values[:0] if plus is None else plus.numpy()
    positions = torch.empty(n + 1, dtype=torch.int64)
    sample, indices, found = np.empty(MAX_SAMPLE, integer), np.empty(capacity, np.int64), np.empty(capacity, integer)
    is_finite = _gather_top_k(
        *spans, np.array(factors), more, values, values.view(integer), mask, sizes, guesses.magnitudes,
        _OCTAVES[integer], positions.numpy(), sample, indices, found, past,
    )  # fmt: skip
    return bool(is_finite), positions[:n]


@lru_cache(maxsize=64)
def _planned(blocks: tuple[tuple[int, int], ...], integer: Any) -> tuple[Array, int, int, Any]:  # noqa: ANN401
    """Return what a pass needs to know of its blocks, which are mostly those of the last round.

    Args:
        blocks: The length of each block, and how many indices to write of it.
        integer: The type of the elements' bits.

    Returns:
        The blocks (blocks, 2), the number of all indices, the candidates that buffers hold, and all bits but the sign.
    """
    sizes = np.array(blocks, np.int64)
    n_candidates = max(_CANDIDATES * int(sizes[:, 1].max()), int(max_candidates(sizes[:, 0], sizes[:, 1]).max()))
    return sizes, int(sizes[:, 1].sum()), 64 + n_candidates, integer(np.iinfo(integer).max)


@kernel
def _gather_top_k(
    addresses: Array, lengths: Array, factors: Array, plus: Array, out: Array, keys: Keys, mask: Any,  # noqa: ANN401
    blocks: Positions, guesses: Positions, octave: int, positions: Positions, sample: Keys, indices: Positions,
    found: Keys, past: bool,
) -> bool:  # fmt: skip
    """Write the vector, and indices to all of `positions` but the last element; return whether all is finite.

    Args:
        addresses: (tensors,), as `spans_of` finds them.
        lengths: (tensors,), likewise.
        factors: (tensors,) float64.
        plus: (d,), or empty.
        out: (d,), overwritten.
        keys: The same memory as integers.
        mask: All bits but the sign.
        blocks: (blocks, 2), the length of each block and how many indices to write of it.
        guesses: (blocks,), magnitudes to collect from, as bits; overwritten with those for the next time.
        octave: A factor of 2, as bits.
        positions: Overwritten with indices.
        sample: (MAX_SAMPLE,), a buffer.
        indices: A buffer for the candidates of a block.
        found: A buffer for their keys.
        past: Store past the caches.
    """
    wrong, at, written, tensor, begin = uint64(0), 0, 0, 0, 0
    for block in range(blocks.shape[0]):
        start, stop, k, n = at, at + blocks[block, 0], blocks[block, 1], 0
        guess = floor = keys.dtype.type(guesses[block])
        while at < stop:
            while begin == lengths[tensor]:
                tensor, begin = tensor + 1, 0
            size = min(stop - at, lengths[tensor] - begin)
            address = addresses[tensor] + uint64(begin * out.itemsize)
            one = carray(pointer_to(address), (size,), out.dtype)
            more = plus[at : at + size] if plus.size else plus
            part, its_keys, by = out[at : at + size], keys[at : at + size], out.dtype.type(factors[tensor])
            n, floor, more_wrong = _scaled(
                one, by, more, part, its_keys, at - start, mask, floor, k, indices, found, n, past
            )  # fmt: skip
            wrong |= more_wrong
            at, begin = at + size, begin + size
        into = positions[written : written + k + 1]
        if n >= k:
            last = int64(take_candidates(found[:n], mask, indices[:n], into))
            guesses[block] = (
                _next_guess(last, int64(guess), n, k, octave) if floor == guess else min(int64(floor), last)
            )
        else:
            last = int64(largest_of(keys[start:stop], mask, k, into, sample, indices, found))
            guesses[block] = max(last - octave // 16, 0)
        for i in range(k):
            into[i] += start
        written += k
    return bool(wrong == uint64(0))


@kernel
def _next_guess(last: int, guess: int, n: int, k: int, octave: int) -> Any:  # noqa: ANN401 - int64
    """Return a magnitude, as bits, that half as many again as k elements would have reached, and more where k is small.

    Args:
        last: The magnitude that k elements have reached.
        guess: One no larger, that n have reached.
        n: At least k.
        k: How many were to be found.
        octave: A factor of 2, as bits.
    """
    if n == k or last == guess:
        return max(guess - octave // 16, 0)
    wanted = 1.5 * k + 4.0 * np.sqrt(k) + 4.0
    below = (last - guess) * np.log(wanted / k) / np.log(n / k)  # as if log n were a straight line
    return max(last - int64(min(below, float(octave))), 0)


@kernel
def _keep_largest(found: Keys, mask: Any, indices: Positions, k: int) -> Any:  # noqa: ANN401
    """Move the k largest candidates to the front, in their order; return the smallest of their magnitudes."""
    last, n_ties = kth_largest(found, mask, k)
    n = 0
    for i in range(found.size):
        key, index = found[i], indices[i]
        if (key & mask) > last or ((key & mask) == last and n_ties > 0):
            n_ties -= int((key & mask) == last)
            found[n], indices[n] = key, index
            n += 1
    return last


@kernel
def _scaled(
    one: Array, by: Any, plus: Array, out: Array, keys: Keys, offset: int, mask: Any, floor: Any,  # noqa: ANN401
    k: int, indices: Positions, found: Keys, n: int, past: bool,
) -> tuple[int, Any, Any]:  # fmt: skip
    """Write one * by + plus to a part of a block, and collect what reaches the floor.

    Args:
        one: (m,), the tensor's elements.
        by: Their factor.
        plus: (m,), or empty.
        out: (m,), overwritten.
        keys: The same memory as integers.
        offset: Index of the part in its block.
        mask: All bits but the sign.
        floor: The magnitude, as bits.
        k: How many are to be found in the block.
        indices: Overwritten with indices from the n-th on.
        found: Overwritten with keys from the n-th on.
        n: How many were collected before.
        past: Store past the caches, if `out` begins at a multiple of 64 bytes.

    Returns:
        The new n, the new floor, and not 0 if an element is inf or NaN.
    """
    wrong, none, full = uint64(0), out.dtype.type(0), out.size // 64 * 64
    past, its_keys = past and out.ctypes.data % 64 == 0, np.empty(64, keys.dtype)  # memory past the caches is far away
    for start in range(0, full, 64):
        if plus.size and past:
            bits, non_finite = scaled_at(out, its_keys, one, plus, start, by, mask, floor, 1)
        elif plus.size:
            bits, non_finite = scaled_at(out, its_keys, one, plus, start, by, mask, floor, None)
        elif past:
            bits, non_finite = scaled_at(out, its_keys, one, None, start, by, mask, floor, 1)
        else:
            bits, non_finite = scaled_at(out, its_keys, one, None, start, by, mask, floor, None)
        wrong |= non_finite
        if bits and n + 64 > indices.size:
            floor, n = min(_keep_largest(found[:n], mask, indices[:n], k) + 1, mask), k
        while bits:
            at = lowest(bits)
            indices[n] = offset + start + at
            found[n] = its_keys[at]
            n += 1
            bits &= bits - uint64(1)
    if n + 64 > indices.size:
        floor, n = min(_keep_largest(found[:n], mask, indices[:n], k) + 1, mask), k
    for at in range(full, out.size):
        value = one[at] * by + (plus[at] if plus.size else none)
        out[at] = value
        wrong |= uint64(value - value != none)
        if (keys[at] & mask) >= floor:
            indices[n] = offset + at
            found[n] = keys[at]
            n += 1
    return n, floor, wrong
