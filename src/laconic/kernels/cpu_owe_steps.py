"""Steps with error feedback over a range of a vector: see `plain_signs.owe_step` and `owe_total`."""

from typing import Any

import numpy as np
from numba import uint32
from numpy.typing import NDArray

from laconic.kernels.compiled import kernel
from laconic.kernels.cpu_owe import owe_step_at, owe_step_past_caches, owe_total_at, owe_total_past_caches
from laconic.kernels.cpu_words import ALL, NONE, Words, append, compress, head, population

Array = NDArray[Any]
Coin = tuple[int, int, int, int]  # first, the key's halves, the threshold


@kernel
def owe_step(
    gradient: Array, momentum: Array, debt: Array, new_debt: Array, mu: float, decay: float, c: float,
    coin: Coin, past_caches: bool, words: Words,
) -> int:  # fmt: skip
    number = gradient.dtype.type
    first, low, high = uint32(coin[0]), uint32(coin[1]), uint32(coin[2])
    limit, allowed = uint32(coin[3] - 1), ALL if coin[3] else NONE
    rates = number(mu), number(decay), number(c if coin[3] else 0.0)
    words[0] = 0
    n = 0
    whole = gradient.size // 64 * 64
    for place in range(0, whole, 64):
        at = uint32(first + place)
        if past_caches:
            negative, mask = owe_step_past_caches(
                debt, momentum, new_debt, gradient, place, *rates, at, low, high, limit
            )
        else:
            negative, mask = owe_step_at(debt, momentum, new_debt, gradient, place, *rates, at, low, high, limit)
        mask &= allowed
        n = append(words, n, compress(negative, mask), population(mask))
    rest = gradient.size - whole
    if rest:
        last = np.zeros((4, 64), gradient.dtype)
        g, m, e, out = last[0], last[1], last[2], last[3]
        g[:rest], m[:rest], e[:rest] = gradient[whole:], momentum[whole:], debt[whole:]
        at = uint32(first + whole)
        negative, mask = owe_step_at(e, m, out, g, 0, *rates, at, low, high, limit)
        mask &= allowed & head(rest)
        n = append(words, n, compress(negative, mask), population(mask))
        gradient[whole:], new_debt[whole:] = g[:rest], out[:rest]
    return n


@kernel
def owe_total(
    total: Array, debt: Array, new_debt: Array, among: float, scale: float, decay: float, c: float,
    coin: Coin, past_caches: bool, words: Words,
) -> int:  # fmt: skip
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
            negative, mask = owe_total_past_caches(debt, total, new_debt, place, *rates, at, low, high, limit)
        else:
            negative, mask = owe_total_at(debt, total, new_debt, place, *rates, at, low, high, limit)
        mask &= allowed
        n = append(words, n, compress(negative, mask), population(mask))
    rest = debt.size - whole
    if rest:
        t, last = np.zeros(64, total.dtype), np.zeros((2, 64), debt.dtype)
        e, out = last[0], last[1]
        t[:rest], e[:rest] = total[whole:], debt[whole:]
        at = uint32(first + whole)
        negative, mask = owe_total_at(e, t, out, 0, *rates, at, low, high, limit)
        mask &= allowed & head(rest)
        n = append(words, n, compress(negative, mask), population(mask))
        new_debt[whole:] = out[:rest]
    return n
