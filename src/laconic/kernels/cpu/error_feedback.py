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
    owe_step_at,
    owe_step_past_caches,
    owe_total_at,
    owe_total_past_caches,
)
from laconic.kernels.cpu.llvm.vectors import ALL, NONE, Words, append, compress, head, population, whole_blocks

Array = NDArray[Any]
Coin = tuple[int, int, int, int]  # first coordinate, the halves of the mixed key, threshold


@kernel
def owe_step(
    addresses: Array, sizes: Array, momentum: Array, debt: Array, new_momentum: Array, new_debt: Array,
    mu: float, decay: float, c: float, coin: Coin, past_caches: bool, words: Words, drawn: Words,
) -> tuple[int, bool]:  # fmt: skip
    """Take a worker's step.

    Args:
        addresses: (tensors,) uint64, where the gradient tensors begin.
        sizes: (tensors,) int64, their elements; `count` in all.
        momentum: (count,) of one float type, as all vectors.
        residual: (count,), residual before the step.
        new_momentum: (count,), overwritten.
        new_residual: (count,), overwritten.
        mu: The momentum factor.
        decay: Factor of the old residual.
        c: Magnitude that a sent sign stands for.
        bernoulli: The mask's first coordinate, the two halves of its key, its threshold.
        past_caches: Store past the caches; both new vectors must begin at a multiple of 64 bytes.
        words: The stream of signs, overwritten.
        sampled: The mask as bits, overwritten.

    Returns:
        How many elements are selected, and whether all are finite.
    """
    number = debt.dtype.type
    first, low, high = uint32(coin[0]), uint32(coin[1]), uint32(coin[2])
    limit, allowed = uint32(coin[3] - 1), ALL if coin[3] else NONE
    rates = number(mu), number(decay), number(c if coin[3] else 0.0)
    words[0] = drawn[0] = 0
    n, at, wrong = 0, 0, uint64(0)
    for i in range(sizes.size):
        end = at + sizes[i]
        piece = carray(pointer_to(addresses[i]), (sizes[i],), debt.dtype)
        owed, moved, old_debt, old = new_debt[at:end], new_momentum[at:end], debt[at:end], momentum[at:end]
        start, stop = whole_blocks(owed, past_caches)
        for few in range(2):  # elements before the full blocks first, then the blocks and the elements behind
            if few:
                for place in range(start, stop, 64):
                    here = uint32(first + at + place)
                    if past_caches:
                        negative, mask, spoiled = owe_step_past_caches(
                            owed, moved, old_debt, old, piece, place, *rates, here, low, high, limit
                        )
                    else:
                        negative, mask, spoiled = owe_step_at(
                            owed, moved, old_debt, old, piece, place, *rates, here, low, high, limit
                        )
                    mask &= allowed
                    wrong |= spoiled
                    append(drawn, at + place, mask, 64)
                    n = append(words, n, compress(negative, mask), population(mask))
            place, to = (stop, sizes[i]) if few else (0, start)
            if place < to:
                negative, mask, spoiled = _owe_few(
                    owed[place:to], moved[place:to], old_debt[place:to], old[place:to], piece[place:to],
                    rates, uint32(first + at + place), low, high, limit,
                )  # fmt: skip
                mask &= allowed
                wrong |= spoiled
                append(drawn, at + place, mask, to - place)
                n = append(words, n, compress(negative, mask), population(mask))
        at = end
    return n, wrong == uint64(0)


@kernel
def _owe_few(
    owed: Array, moved: Array, debt: Array, momentum: Array, gradient: Array, rates: Any, first: Any,  # noqa: ANN401
    low: Any, high: Any, limit: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401  # fmt: skip
    """Take the step on fewer than 64 elements, through a buffer of 64. Returns the same words as for 64."""
    n = owed.size
    room = np.zeros((5, 64), owed.dtype)
    room[2, :n], room[3, :n], room[4, :n] = debt, momentum, gradient
    negative, mask, spoiled = owe_step_at(
        room[0], room[1], room[2], room[3], room[4], 0, *rates, first, low, high, limit
    )
    owed[:], moved[:] = room[0, :n], room[1, :n]
    return negative, mask & head(n), spoiled & head(n)


@kernel
def owe_total(
    total: Array, debt: Array, new_debt: Array, among: float, scale: float, decay: float, c: float,
    coin: Coin, past_caches: bool, words: Words, drawn: Words,
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
        bernoulli: The mask's first coordinate, the two halves of its key, its threshold.
        past_caches: Store past the caches; the new residual must begin at a multiple of 64 bytes.
        words: The stream of signs, overwritten.
        sampled: The mask as words, overwritten.

    Returns:
        How many elements are selected.
    """
    number = debt.dtype.type
    first, low, high = uint32(coin[0]), uint32(coin[1]), uint32(coin[2])
    limit, allowed = uint32(coin[3] - 1), ALL if coin[3] else NONE
    rates = number(among), number(scale), number(decay), number(c if coin[3] else 0.0)
    words[0] = 0
    n = 0
    whole = debt.size // 64 * 64
    for place in range(0, whole, 64):
        at = uint32(first + place)
        if past_caches:
            negative, mask, _ = owe_total_past_caches(new_debt, debt, total, place, *rates, at, low, high, limit)
        else:
            negative, mask, _ = owe_total_at(new_debt, debt, total, place, *rates, at, low, high, limit)
        mask &= allowed
        drawn[place >> 6] = mask
        n = append(words, n, compress(negative, mask), population(mask))
    rest = debt.size - whole
    if rest:
        t, last = np.zeros(64, total.dtype), np.zeros((2, 64), debt.dtype)
        e, out = last[0], last[1]
        t[:rest], e[:rest] = total[whole:], debt[whole:]
        at = uint32(first + whole)
        negative, mask, _ = owe_total_at(out, e, t, 0, *rates, at, low, high, limit)
        mask &= allowed & head(rest)
        drawn[whole >> 6] = mask
        n = append(words, n, compress(negative, mask), population(mask))
        new_debt[whole:] = out[:rest]
    return n
