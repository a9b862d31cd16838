"""Plain forms of the momentum and error feedback kernels. Each has the arguments of the kernel that it stands for.

Loops run over slices of a tile from 0 on, which numba turns into vector instructions: first the arithmetic, with a
byte about each element's sign and one about whether it is selected, then bytes to bits.
"""

from typing import Any

import numpy as np
from numba import uint8, uint32, uint64
from numba.np.numpy_support import carray

from laconic.kernels.cpu.code_tiles import TILE, pack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to
from laconic.kernels.cpu.hashing import hash32
from laconic.kernels.cpu.llvm.vectors import ALL, NONE, append, compress, population

# ruff: noqa: ANN401 - numba's own arrays and scalars


def error_feedback_step(
    addresses: Any, sizes: Any, vectors: Any, like: Any, mu: Any, decay: Any, c: Any, draw: Any, past: Any,
    words: Any, sampled: Any,
) -> Any:  # fmt: skip
    """See `cpu/error_feedback.py`."""
    number, count = like.dtype.type, sizes.sum()
    momentum = carray(pointer_to(uint64(vectors[0])), (count,), like.dtype)
    residual = carray(pointer_to(uint64(vectors[1])), (count,), like.dtype)
    new_momentum = carray(pointer_to(uint64(vectors[2])), (count,), like.dtype)
    new_residual = carray(pointer_to(uint64(vectors[3])), (count,), like.dtype)
    none, factor, share, size = number(0), number(mu), number(decay), number(c if draw[3] else 0.0)
    low, high, limit, allowed = uint32(draw[1]), uint32(draw[2]), uint32(draw[3] - 1), ALL if draw[3] else NONE
    below, chosen = np.zeros(TILE, np.uint8), np.zeros(TILE, np.uint8)
    words[0] = sampled[0] = 0
    n, at, wrong = 0, 0, uint32(0)
    for i in range(sizes.size):
        tensor = carray(pointer_to(addresses[i]), (sizes[i],), residual.dtype)
        for start in range(0, sizes[i], TILE):
            gradient = tensor[start : start + TILE]
            base = at + start
            end = base + gradient.size
            old, before, moved, after = (
                momentum[base:end],
                residual[base:end],
                new_momentum[base:end],
                new_residual[base:end],
            )
            coordinate = uint32(draw[0] + base)
            for k in range(gradient.size):
                new = factor * old[k] + gradient[k]
                corrected = (factor * new + gradient[k]) + share * before[k]
                moved[k] = new
                is_chosen = hash32(uint32(coordinate + uint32(k)), low, high) <= limit
                sent = -size if corrected < none else size
                after[k] = corrected - (sent if is_chosen else none)
                below[k], chosen[k] = uint8(corrected < none), uint8(is_chosen)
                wrong |= uint32(corrected - corrected != none)
            n = _streams(below, chosen, gradient.size, base, n, allowed, words, sampled)
        at += sizes[i]
    return n, wrong == uint32(0)


def error_feedback_total(
    total: Any, residual: Any, new_residual: Any, divisor: Any, scale: Any, decay: Any, c: Any, draw: Any,
    past: Any, words: Any, sampled: Any,
) -> Any:  # fmt: skip
    """See `cpu/error_feedback.py`."""
    number = residual.dtype.type
    none, by, factor, share = number(0), number(divisor), number(scale), number(decay)
    size = number(c if draw[3] else 0.0)
    low, high, limit, allowed = uint32(draw[1]), uint32(draw[2]), uint32(draw[3] - 1), ALL if draw[3] else NONE
    below, chosen = np.zeros(TILE, np.uint8), np.zeros(TILE, np.uint8)
    words[0] = sampled[0] = 0
    n = 0
    for base in range(0, residual.size, TILE):
        before, after = residual[base : base + TILE], new_residual[base : base + TILE]
        votes, coordinate = total[base : base + TILE], uint32(draw[0] + base)
        for k in range(before.size):
            corrected = share * before[k] + factor * (number(votes[k]) / by)
            is_chosen = hash32(uint32(coordinate + uint32(k)), low, high) <= limit
            sent = -size if corrected < none else size
            after[k] = corrected - (sent if is_chosen else none)
            below[k], chosen[k] = uint8(corrected < none), uint8(is_chosen)
        n = _streams(below, chosen, before.size, base, n, allowed, words, sampled)
    return n


@kernel
def _streams(below: Any, chosen: Any, count: Any, base: Any, n: Any, allowed: Any, words: Any, sampled: Any) -> Any:
    """Write a tile's bits behind the mask's `base` bits and the stream's n. Returns the stream's new length."""
    bits = np.zeros(TILE // 4, np.uint8)
    below[count:], chosen[count:] = uint8(0), uint8(0)
    pack_tile(below, 1, bits[: TILE // 8])
    pack_tile(chosen, 1, bits[TILE // 8 :])
    both = bits.view(np.uint64)
    for place in range(0, count, 64):
        mask = both[(TILE + place) // 64] & allowed
        append(sampled, base + place, mask, min(64, count - place))
        n = append(words, n, compress(both[place // 64], mask), population(mask))
    return n
