"""Momentum and error feedback steps over a range of a vector, compiled.

Reference: `reference.signs.error_feedback_step` and `error_feedback_total`.

Both write two bit streams: the signs of the selected elements, and which elements are selected. The arithmetic on 64
elements is in `llvm/error_feedback.py`.
"""

from typing import Any

import numpy as np
from numba import uint32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to
from laconic.kernels.cpu.llvm.error_feedback import (
    error_feedback_step_at,
    error_feedback_total_at,
)
from laconic.kernels.cpu.llvm.vectors import ALL, NONE, Words, append, compress, full_blocks, low_bits, population

Array = NDArray[Any]
Draw = tuple[int, int, int, int]  # first coordinate, the halves of the mixed key, threshold
Vectors = tuple[int, ...]  # addresses of four


@kernel
def error_feedback_step(
    addresses: Array, sizes: Array, vectors: Vectors, like: Array, mu: float, decay: float, c: float, draw: Draw,
    past: int | None, words: Words, sampled: Words,
) -> tuple[int, bool]:  # fmt: skip
    """Take a worker's step.

    Args:
        addresses: (tensors,) uint64, where the gradient tensors begin.
        sizes: (tensors,) int64, their elements; `count` in all.
        vectors: Where contiguous vectors (count,) begin, in bytes: the momentum and the residual before the step, and
            the new ones, overwritten. Arrays of them would cost more calls than a short step.
        like: An array of the type of all elements.
        mu: The momentum factor.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        draw: The mask's first coordinate, the two halves of its key, its threshold.
        past: 1 to store past the caches, otherwise None; both new vectors must begin at a multiple of 64 bytes.
        words: The stream of signs, overwritten.
        sampled: The mask as bits, overwritten.

    Returns:
        How many elements are selected, and whether all are finite.
    """
    number, count = like.dtype.type, sizes.sum()
    momentum = carray(pointer_to(uint64(vectors[0])), (count,), like.dtype)
    residual = carray(pointer_to(uint64(vectors[1])), (count,), like.dtype)
    new_momentum = carray(pointer_to(uint64(vectors[2])), (count,), like.dtype)
    new_residual = carray(pointer_to(uint64(vectors[3])), (count,), like.dtype)
    offset, low, high = uint32(draw[0]), uint32(draw[1]), uint32(draw[2])
    limit, allowed = uint32(draw[3] - 1), ALL if draw[3] else NONE
    factors = number(mu), number(decay), number(c if draw[3] else 0.0)
    words[0] = sampled[0] = 0
    n, at, wrong = 0, 0, uint64(0)
    for i in range(sizes.size):
        end = at + sizes[i]
        tensor = carray(pointer_to(addresses[i]), (sizes[i],), residual.dtype)
        residual_out, moved, old_residual, old = (
            new_residual[at:end],
            new_momentum[at:end],
            residual[at:end],
            momentum[at:end],
        )
        start, stop = full_blocks(residual_out, past is not None)
        for few in range(2):  # elements before the full blocks first, then the blocks and the elements behind
            if few:
                for place in range(start, stop, 64):
                    here = uint32(offset + at + place)
                    negative, mask, non_finite = error_feedback_step_at(
                        residual_out, moved, old_residual, old, tensor, place, *factors, here, low, high, limit, past
                    )
                    mask &= allowed
                    wrong |= non_finite
                    append(sampled, at + place, mask, 64)
                    n = append(words, n, compress(negative, mask), population(mask))
            place, to = (stop, sizes[i]) if few else (0, start)
            if place < to:
                negative, mask, non_finite = _error_feedback_few(
                    residual_out[place:to], moved[place:to], old_residual[place:to], old[place:to], tensor[place:to],
                    factors, uint32(offset + at + place), low, high, limit,
                )  # fmt: skip
                mask &= allowed
                wrong |= non_finite
                append(sampled, at + place, mask, to - place)
                n = append(words, n, compress(negative, mask), population(mask))
        at = end
    return n, wrong == uint64(0)


@kernel
def _error_feedback_few(
    residual_out: Array, moved: Array, residual: Array, momentum: Array, gradient: Array, factors: Any, offset: Any,  # noqa: ANN401
    low: Any, high: Any, limit: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401  # fmt: skip
    """Take the step on fewer than 64 elements, through a buffer of 64. Returns the same words as for 64."""
    n = residual_out.size
    buffer = np.zeros((5, 64), residual_out.dtype)
    buffer[2, :n], buffer[3, :n], buffer[4, :n] = residual, momentum, gradient
    negative, mask, non_finite = error_feedback_step_at(
        buffer[0], buffer[1], buffer[2], buffer[3], buffer[4], 0, *factors, offset, low, high, limit, None
    )
    residual_out[:], moved[:] = buffer[0, :n], buffer[1, :n]
    return negative, mask & low_bits(n), non_finite & low_bits(n)


@kernel
def error_feedback_total(
    total: Array, residual: Array, new_residual: Array, divisor: float, scale: float, decay: float, c: float,
    draw: Draw, past: int | None, words: Words, sampled: Words,
) -> int:  # fmt: skip
    """Take the server's step.

    Args:
        total: (count,) of the residual's type, or int8.
        residual: (count,), residual before the step.
        new_residual: (count,), overwritten.
        divisor: The divisor of the total.
        scale: Factor of the mean.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        draw: The mask's first coordinate, the two halves of its key, its threshold.
        past: 1 to store past the caches, otherwise None; the new residual must begin at a multiple of 64 bytes.
        words: The stream of signs, overwritten.
        sampled: The mask as words, overwritten.

    Returns:
        How many elements are selected.
    """
    number = residual.dtype.type
    offset, low, high = uint32(draw[0]), uint32(draw[1]), uint32(draw[2])
    limit, allowed = uint32(draw[3] - 1), ALL if draw[3] else NONE
    factors = number(divisor), number(scale), number(decay), number(c if draw[3] else 0.0)
    words[0] = 0
    n = 0
    full = residual.size // 64 * 64
    for place in range(0, full, 64):
        at = uint32(offset + place)
        negative, mask, _ = error_feedback_total_at(
            new_residual, residual, total, place, *factors, at, low, high, limit, past
        )
        mask &= allowed
        sampled[place >> 6] = mask
        n = append(words, n, compress(negative, mask), population(mask))
    rest = residual.size - full
    if rest:
        t, last = np.zeros(64, total.dtype), np.zeros((2, 64), residual.dtype)
        e, out = last[0], last[1]
        t[:rest], e[:rest] = total[full:], residual[full:]
        at = uint32(offset + full)
        negative, mask, _ = error_feedback_total_at(out, e, t, 0, *factors, at, low, high, limit, None)
        mask &= allowed & low_bits(rest)
        sampled[full >> 6] = mask
        n = append(words, n, compress(negative, mask), population(mask))
        new_residual[full:] = out[:rest]
    return n
