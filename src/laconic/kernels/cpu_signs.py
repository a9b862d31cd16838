"""`plain_signs` in machine code, one thread: bit for bit the same, the same operations in the same order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import int64, uint32, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels import plain_signs
from laconic.kernels.compiled import inlined, kernel
from laconic.kernels.cpu_owe import owe_step_at, owe_step_past_caches, owe_total_at, owe_total_past_caches
from laconic.kernels.cpu_words import (
    Words,
    add_signs_at,
    append,
    compress,
    expand,
    kept,
    negatives,
    peek,
    population,
    put_signs_at,
)
from laconic.kernels.plain import key_halves
from laconic.kernels.plain_signs import ALL_KEPT

Array = NDArray[Any]
_ALL, _NONE = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0)
Coin = tuple[int, int, int, int]  # first, the key's halves, the threshold


def count_kept(first: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """See plain_signs."""
    return int(_count(count, _coin(first, key, threshold)))


def kept_bits(
    first: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """See plain_signs."""
    stream = _stream(count)
    n = int(_draw(count, _coin(first, key, threshold), _words(stream)))
    return _cut(stream, count), n


def pack_signs(values: Tensor, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """See plain_signs."""
    if values.dtype not in (torch.float32, torch.float64, torch.int8):
        values = values.float()
    stream = _stream(values.numel())
    n = int(_pack(_array(values), _coin(first, key, threshold), _words(stream)))
    return _cut(stream, n), n


def put_signs(packed: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """See plain_signs."""
    if out.dtype == torch.bfloat16:  # which numpy has not
        plain_signs.put_signs(packed, first, key, threshold, out, drawn)
        return
    _put(_padded(packed, out.numel()), _coin(first, key, threshold), _drawn(drawn, out), _own(out))


def add_signs(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """See plain_signs."""
    if total.dtype == torch.bfloat16:  # which numpy has not
        plain_signs.add_signs(packed, first, key, threshold, total, drawn)
        return
    _add(_padded(packed, total.numel()), _coin(first, key, threshold), _drawn(drawn, total), _own(total))


def cut_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """See plain_signs."""
    start = low // 8
    part = packed[start : (high + 7) // 8]
    n = max(0, high - low)
    stream = _stream(n)
    _copy_bits(_padded(part, 8 * len(part)), low - 8 * start, n, _words(stream))
    return _cut(stream, n)


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """See plain_signs."""
    voters = np.stack([_padded(voter, count) for voter in packed])
    stream = _stream(count)
    _majority(voters, count, _words(stream))
    return _cut(stream, count)


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """See plain_signs."""
    stream = _stream(gradient.numel())
    new = _own(gradient)
    _momentum(new, _array(momentum), mu, 1 - mu, _words(stream))
    return _cut(stream, gradient.numel())


def owe_step(
    gradient: Tensor,
    momentum: Tensor,
    debt: Tensor,
    new_debt: Tensor,
    *,
    mu: float,
    decay: float,
    c: float,
    first: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int]:
    """See plain_signs."""
    stream = _stream(gradient.numel())
    n = _owe_step(
        _own(gradient), _array(momentum), _array(debt), _own(new_debt), mu, decay, c,
        _coin(first, key, threshold), _is_aligned(new_debt), _words(stream),
    )  # fmt: skip
    return _cut(stream, n), n


def owe_total(
    total: Tensor,
    debt: Tensor,
    new_debt: Tensor,
    *,
    among: int,
    scale: float,
    decay: float,
    c: float,
    first: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int]:
    """See plain_signs."""
    stream = _stream(total.numel())
    n = _owe_total(
        _array(total), _array(debt), _own(new_debt), float(among), scale, decay, c,
        _coin(first, key, threshold), _is_aligned(new_debt), _words(stream),
    )  # fmt: skip
    return _cut(stream, n), n


def _coin(first: int, key: int, threshold: int) -> Coin:
    low, high = key_halves(key)
    return first, low, high, threshold


def _array(values: Tensor) -> Array:
    """To read from."""
    return values.detach().contiguous().numpy()


def _own(values: Tensor) -> Array:
    """To write to."""
    assert values.is_contiguous()
    return values.detach().numpy()


def _is_aligned(values: Tensor) -> bool:
    """Whether it may be written past the caches."""
    return values.data_ptr() % 64 == 0


def _stream(n_bits: int) -> Tensor:
    """Room for a stream of so many bits, and for the word that `append` writes behind it."""
    return torch.empty((n_bits + 63) // 64 * 8 + 16, dtype=torch.uint8)


def _words(stream: Tensor) -> Words:
    words: Words = stream.numpy().view(np.uint64)
    return words


def _cut(stream: Tensor, n_bits: int) -> Tensor:
    return stream[: (n_bits + 7) // 8]


def _padded(packed: Tensor, most_bits: int) -> Words:
    """A packed stream as words, with zeros for whatever of `most_bits` it does not hold, and one word to spare."""
    words = np.zeros(most_bits // 64 + 2, np.uint64)
    words.view(np.uint8)[: packed.numel()] = packed.numpy()
    return words


def _drawn(drawn: Tensor | None, like: Tensor) -> Words:
    """The coins as words; none where they are still to be drawn."""
    return np.empty(0, np.uint64) if drawn is None else _padded(drawn, like.numel())


@inlined
def _mask(coin: Any, place: int) -> Any:  # noqa: ANN401 - numba's own scalars
    """Which of the 64 entries from `place` on are kept."""
    first, low, high, threshold = coin
    if threshold > 0xFFFFFFFF:
        return _ALL
    if threshold == 0:
        return _NONE
    return kept(uint32(first + place), uint32(low), uint32(high), uint32(threshold - 1))


@inlined
def _head(n: int) -> Any:  # noqa: ANN401
    """A word whose n lowest bits are set, 0 <= n < 64."""
    return (uint64(1) << uint64(n)) - uint64(1)


@kernel
def _count(count: int, coin: Coin) -> int:
    n: int = 0
    whole = count // 64 * 64
    for place in range(0, whole, 64):
        n += population(_mask(coin, place))
    n += int64(population(_mask(coin, whole) & _head(count - whole)))
    return n


@kernel
def _draw(count: int, coin: Coin, words: Words) -> int:
    n: int = 0
    whole = count // 64 * 64
    for place in range(0, whole, 64):
        mask = _mask(coin, place)
        words[place >> 6] = mask
        n += population(mask)
    mask = _mask(coin, whole) & _head(count - whole)
    words[whole >> 6] = mask
    n += population(mask)
    return n


@kernel
def _pack(values: Array, coin: Coin, words: Words) -> int:
    words[0] = 0
    n = 0
    whole = values.size // 64 * 64
    for place in range(0, whole, 64):
        mask = _mask(coin, place)
        n = append(words, n, compress(negatives(values, place), mask), population(mask))
    rest = values.size - whole
    if rest:
        last = np.zeros(64, values.dtype)
        last[:rest] = values[whole:]
        mask = _mask(coin, whole) & _head(rest)
        n = append(words, n, compress(negatives(last, 0), mask), population(mask))
    return n


@kernel
def _put(words: Words, coin: Coin, drawn: Words, out: Array) -> None:
    n = 0
    whole = out.size // 64 * 64
    one = out.dtype.type(1)
    for place in range(0, whole, 64):
        mask = drawn[place >> 6] if drawn.size else _mask(coin, place)
        put_signs_at(out, place, expand(peek(words, n), mask), mask, one)
        n += population(mask)
    rest = out.size - whole
    if rest:
        last = np.empty(64, out.dtype)
        mask = drawn[whole >> 6] if drawn.size else _mask(coin, whole)
        put_signs_at(last, 0, expand(peek(words, n), mask), mask, one)
        out[whole:] = last[:rest]


@kernel
def _add(words: Words, coin: Coin, drawn: Words, total: Array) -> None:
    n = 0
    whole = total.size // 64 * 64
    one = total.dtype.type(1)
    for place in range(0, whole, 64):
        mask = drawn[place >> 6] if drawn.size else _mask(coin, place)
        add_signs_at(total, place, expand(peek(words, n), mask), mask, one)
        n += population(mask)
    rest = total.size - whole
    if rest:
        last = np.zeros(64, total.dtype)
        last[:rest] = total[whole:]
        mask = drawn[whole >> 6] if drawn.size else _mask(coin, whole)
        add_signs_at(last, 0, expand(peek(words, n), mask), mask, one)
        total[whole:] = last[:rest]


@kernel
def _copy_bits(words: Words, start: int, count: int, out: Words) -> None:
    out[0] = 0
    n = 0
    while count - n >= 64:
        n = append(out, n, peek(words, start + n), 64)
    append(out, n, peek(words, start + n) & _head(count - n), count - n)


@kernel
def _majority(voters: Array, count: int, out: Words) -> None:
    """Counters of 64 entries side by side: plane p holds bit p of each entry's number of negative votes."""
    planes = np.zeros(32, np.uint64)
    n_voters = voters.shape[0]
    n_planes = 1
    while n_voters >> n_planes:
        n_planes += 1
    half = n_voters // 2
    for word in range((count + 63) // 64):
        planes[:n_planes] = 0
        for voter in range(n_voters):
            carry = voters[voter, word]
            for p in range(n_planes):
                both = planes[p] & carry
                planes[p] ^= carry
                carry = both
        more, equal = uint64(0), uint64(0xFFFFFFFFFFFFFFFF)
        for p in range(n_planes - 1, -1, -1):
            if (half >> p) & 1:
                equal &= planes[p]
            else:
                more |= equal & planes[p]
                equal &= ~planes[p]
        out[word] = more


@kernel
def _momentum(gradient: Array, momentum: Array, mu: float, rest_of_one: float, words: Words) -> None:
    number = gradient.dtype.type
    mu, rest_of_one = number(mu), number(rest_of_one)
    for i in range(gradient.size):
        gradient[i] = mu * momentum[i] + rest_of_one * gradient[i]
    _pack(gradient, (0, 0, 0, ALL_KEPT), words)


@kernel
def _owe_step(
    gradient: Array, momentum: Array, debt: Array, new_debt: Array, mu: float, decay: float, c: float,
    coin: Coin, past_caches: bool, words: Words,
) -> int:  # fmt: skip
    number = gradient.dtype.type
    first, low, high = uint32(coin[0]), uint32(coin[1]), uint32(coin[2])
    limit, allowed = uint32(coin[3] - 1), _ALL if coin[3] else _NONE
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
        mask &= allowed & _head(rest)
        n = append(words, n, compress(negative, mask), population(mask))
        gradient[whole:], new_debt[whole:] = g[:rest], out[:rest]
    return n


@kernel
def _owe_total(
    total: Array, debt: Array, new_debt: Array, among: float, scale: float, decay: float, c: float,
    coin: Coin, past_caches: bool, words: Words,
) -> int:  # fmt: skip
    number = debt.dtype.type
    first, low, high = uint32(coin[0]), uint32(coin[1]), uint32(coin[2])
    limit, allowed = uint32(coin[3] - 1), _ALL if coin[3] else _NONE
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
        mask &= allowed & _head(rest)
        n = append(words, n, compress(negative, mask), population(mask))
        new_debt[whole:] = out[:rest]
    return n
