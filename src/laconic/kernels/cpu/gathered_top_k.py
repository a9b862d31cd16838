"""A vector made of tensors, and the largest magnitudes of its blocks, compiled: one pass over all.

Reference: `reference/gathered_top_k.py`.

While it writes the vector, the pass collects what reaches a guess: a little less than the magnitude that the block's
last selection ended at, by how many reached the last guess. If at least k do, the k largest are among these; else the
block is read again, as `top_k` reads it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import int64, uint32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu import flatten, top_k
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import are_contiguous_floats, pointer_to, spans_of
from laconic.kernels.cpu.llvm.vectors import lowest
from laconic.kernels.cpu.threads import is_split
from laconic.kernels.cpu.top_k import MAX_SAMPLE, Keys, Positions, largest_of, max_candidates, take_candidates
from laconic.kernels.reference.gathered_top_k import Guesses

Array = NDArray[Any]

_CANDIDATES = 4  # times as many as are taken may reach a guess
_OCTAVES: dict[Any, Any] = {np.int32: 1 << 23, np.int64: 1 << 52}  # a factor of 2, as bits
_STEEPNESS = 7.0  # by so many octaves fewer elements reach a magnitude one octave up, where normal numbers have 1 %


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
    sizes, integer = np.array(blocks, np.int64), np.int32 if out.dtype == torch.float32 else np.int64
    mask = integer(np.iinfo(integer).max)
    if guesses.magnitudes.size != len(blocks):
        guesses.magnitudes = np.full(len(blocks), mask, np.int64)  # which nothing reaches
    values = out.numpy()
    more = values[:0] if plus is None else plus.numpy()
    n = int(sizes[:, 1].sum())
    positions = torch.empty(n + 1, dtype=torch.int64)
    capacity = 64 + max(_CANDIDATES * int(sizes[:, 1].max()), int(max_candidates(sizes[:, 0], sizes[:, 1]).max()))
    sample, indices, found = np.empty(MAX_SAMPLE, integer), np.empty(capacity, np.int64), np.empty(capacity, integer)
    is_finite = _gather_top_k(
        *spans, np.array(factors), more, values, values.view(integer), mask, sizes, guesses.magnitudes,
        _OCTAVES[integer], positions.numpy(), sample, indices, found,
    )  # fmt: skip
    return bool(is_finite), positions[:n]


@kernel
def _gather_top_k(
    addresses: Array, lengths: Array, factors: Array, plus: Array, out: Array, keys: Keys, mask: Any,  # noqa: ANN401
    blocks: Positions, guesses: Positions, octave: int, positions: Positions, sample: Keys, indices: Positions,
    found: Keys,
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
    """
    wrong, at, written, tensor, begin = uint32(0), 0, 0, 0, 0
    for block in range(blocks.shape[0]):
        start, stop, k, n = at, at + blocks[block, 0], blocks[block, 1], 0
        guess, floor = int64(guesses[block]), keys.dtype.type(guesses[block])
        while at < stop:
            while begin == lengths[tensor]:
                tensor, begin = tensor + 1, 0
            size = min(stop - at, lengths[tensor] - begin)
            address = addresses[tensor] + uint64(begin * out.itemsize)
            one = carray(pointer_to(address), (size,), out.dtype)
            more = plus[at : at + size] if plus.size else plus
            part, its_keys, by = out[at : at + size], keys[at : at + size], out.dtype.type(factors[tensor])
            n, more_wrong = _scaled(one, by, more, part, its_keys, at - start, mask, floor, indices, found, n)
            wrong |= more_wrong
            at, begin = at + size, begin + size
        into = positions[written : written + k + 1]
        if n >= k:
            last = take_candidates(found[:n], mask, indices[:n], into)
            wanted = 1.5 * k + 4.0 * np.sqrt(k) + 4.0
            guess = min(guess + int(np.log2(n / wanted) / _STEEPNESS * octave), int64(last))
        else:
            last = largest_of(keys[start:stop], mask, k, into, sample, indices, found)
            guess = int64(last) - octave // 8
        guesses[block] = max(guess, 0)
        for i in range(k):
            into[i] += start
        written += k
    return bool(wrong == uint32(0))


@kernel
def _scaled(
    one: Array, by: Any, plus: Array, out: Array, keys: Keys, offset: int, mask: Any, guess: Any,  # noqa: ANN401
    indices: Positions, found: Keys, n: int,
) -> tuple[int, Any]:  # fmt: skip
    """Write one * by + plus to a part of a block, and collect what reaches the guess.

    Args:
        one: (m,), the tensor's elements.
        by: Their factor.
        plus: (m,), or empty.
        out: (m,), overwritten.
        keys: The same memory as integers.
        offset: Index of the part in its block.
        mask: All bits but the sign.
        guess: The magnitude, as bits.
        indices: Overwritten with indices from the n-th on.
        found: Overwritten with keys from the n-th on.
        n: How many were collected before; -1 for too many, so that no more are.

    Returns:
        The new n, and not 0 if an element is inf or NaN.
    """
    wrong, none, full = uint32(0), out.dtype.type(0), out.size // 64 * 64
    for start in range(0, full, 64):  # with a length that the compiler knows
        part, its_ones, its_keys = out[start : start + 64], one[start : start + 64], keys[start : start + 64]
        if plus.size:
            its_more = plus[start : start + 64]
            for k in range(64):
                value = its_ones[k] * by + its_more[k]
                part[k] = value
                wrong |= uint32(value - value != none)
        else:
            for k in range(64):
                value = its_ones[k] * by + none
                part[k] = value
                wrong |= uint32(value - value != none)
        if n < 0:
            continue
        bits = uint64(0)
        for k in range(64):
            bits |= uint64((its_keys[k] & mask) >= guess) << uint64(k)
        if bits and n + 64 > indices.size:
            n, bits = -1, uint64(0)
        while bits:
            at = start + lowest(bits)
            indices[n] = offset + at
            found[n] = keys[at]
            n += 1
            bits &= bits - uint64(1)
    if n + 64 > indices.size:
        n = -1
    for at in range(full, out.size):
        value = one[at] * by + (plus[at] if plus.size else none)
        out[at] = value
        wrong |= uint32(value - value != none)
        if n >= 0 and (keys[at] & mask) >= guess:
            indices[n] = offset + at
            found[n] = keys[at]
            n += 1
    return n, wrong
