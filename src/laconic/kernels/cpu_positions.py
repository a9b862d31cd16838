"""`plain_positions` in machine code. Every read is within its array, whatever the stream says."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.kernels.compiled import kernel
from laconic.kernels.plain_positions import SHARE_BITS, Bytes, Numbers, Words

_U64 = np.uint64
_I64: Any = np.int64  # mixing signed and unsigned numbers would give floats
_Long = NDArray[np.uint64]
_LEADING = np.array([8 - byte.bit_length() for byte in range(256)], dtype=np.uint64)  # zeros before a byte's first one
_LOW_SHARE = (1 << SHARE_BITS) - 1
_WORD_MASK = 0xFFFFFFFF
_FOUR = 1025 << 2  # the float 4.0, less its last 50 bits


def put_numbers(numbers: Numbers, width: int) -> Bytes:
    """See plain_positions."""
    n_bits = numbers.size * width
    words = np.zeros(n_bits // 64 + 1, dtype=np.uint64)
    _put(numbers, width, words)
    return _bytes(words, n_bits)


def take_numbers(data: Bytes, k: int, width: int) -> Numbers:
    """See plain_positions."""
    return _take(_long_words(data), k, width)


def put_runs(positions: Numbers, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Bytes, int]:
    """See plain_positions."""
    words = np.zeros(n_bits // 64 + 1, dtype=np.uint64)
    used = int(_put_runs(positions, width, step, from_last, words))
    return _bytes(words, n_bits), used


def take_runs(
    data: Bytes, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Numbers, int]:
    """See plain_positions."""
    positions = np.zeros(k, dtype=np.int64)
    return positions, _take_runs(_long_words(data), n_bits, width, step, count, from_last, _LEADING, positions)


def push_gaps(positions: Numbers, starts: Numbers) -> tuple[Words, int]:
    """See plain_positions."""
    words = np.empty(2 * positions.size, dtype=np.uint32)  # one before each push, at most
    n_words, top = _push(positions, starts, words)
    return words[:n_words].copy(), int(top)


def pop_gaps(words: Words, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """See plain_positions."""
    class_of = np.repeat(np.arange(starts.size - 1, dtype=np.uint8), np.diff(starts))
    positions = np.zeros(k, dtype=np.int64)
    return positions, bool(_pop(words, _U64(top), starts, class_of, count, positions))


def _long_words(data: Bytes) -> _Long:
    """The stream as numbers of 64 bits, with at least one of zeros behind it: a window may start at any bit."""
    padded = np.zeros(8 * (data.size // 8 + 2), dtype=np.uint8)
    padded[: data.size] = data
    return padded.view(">u8").astype(np.uint64)


def _bytes(words: _Long, n_bits: int) -> Bytes:
    """The first `n_bits` of the stream, in whole bytes."""
    return words.astype(">u8").view(np.uint8)[: (n_bits + 7) // 8]


@kernel
def _write(words: _Long, number: np.uint64, at: int, width: int) -> None:
    """A number of `width` bits, 1 .. 33, from bit `at` on."""
    room = 64 - (at & 63)  # in the word where it begins
    if width <= room:
        words[at >> 6] |= number << _U64(room - width)
    else:
        words[at >> 6] |= number >> _U64(width - room)
        words[(at >> 6) + 1] |= number << _U64(64 - width + room)


@kernel
def _put(numbers: Numbers, width: int, words: _Long) -> None:
    for i in range(numbers.size):
        _write(words, _U64(numbers[i]), i * width, width)


@kernel
def _put_runs(positions: Numbers, width: int, step: int, from_last: bool, words: _Long) -> int:
    at, base = 0, 0
    for i in range(positions.size):
        ahead = positions[i] - base
        run = _I64(_U64(ahead) // _U64(step))
        at += run
        _write(words, _U64(ahead - run * step) | _U64(1) << _U64(width), at, 1 + width)
        at += 1 + width
        base = positions[i] + 1 if from_last else base + run * step
    return at


@kernel
def _window(words: _Long, at: int) -> np.uint64:
    """The 64 bits from bit `at` on."""
    offset = _U64(at & 63)
    high: np.uint64 = words[at >> 6] << offset | words[(at >> 6) + 1] >> _U64(1) >> (_U64(63) - offset)
    return high


@kernel
def _take(words: _Long, k: int, width: int) -> Numbers:
    numbers = np.empty(k, dtype=np.int64)
    for i in range(k):
        numbers[i] = _window(words, i * width) >> _U64(64 - width)
    return numbers


@kernel
def _take_runs(
    words: _Long, n_bits: int, width: int, step: int, count: int, from_last: bool, leading: _Long, positions: Numbers
) -> int:
    at, base, last = 0, 0, -1
    most = count // step + 1
    for i in range(positions.size):
        run = 0
        while True:
            if at >= n_bits:
                return -1
            window = _window(words, at)
            zeros = leading[window >> _U64(56)]
            if zeros < _U64(8):
                break
            at += 8
            run += 8
        run += _I64(zeros)
        at += _I64(zeros) + 1 + width
        if at > n_bits or run > most:
            return -1
        number = _I64(window << (zeros + _U64(1)) >> _U64(1) >> _U64(63 - width))
        base += run * step
        position = base + number
        if number >= step or position <= last or position >= count:
            return -1
        positions[i] = last = position
        if from_last:
            base = position + 1
    return at


@kernel
def _push(positions: Numbers, starts: Numbers, words: Words) -> tuple[int, np.uint64]:
    top = _U64(1)
    n = 0
    for i in range(positions.size - 1, -1, -1):
        raised = positions[i] - (positions[i - 1] if i else -1) + 3
        kind = (np.float64(raised).view(np.int64) >> 50) - _FOUR  # the exponent, and two binary digits behind it
        extra = _U64(kind >> 2)
        rest = _U64(raised) & ((_U64(1) << extra) - _U64(1))
        if top >> _U64(32) >> (_U64(32) - extra) != _U64(0):
            words[n] = top & _U64(_WORD_MASK)
            n += 1
            top >>= _U64(32)
        top = top << extra | rest
        start = _U64(starts[kind])
        share = _U64(starts[kind + 1]) - start
        if top >> _U64(64 - SHARE_BITS) >= share:
            words[n] = top & _U64(_WORD_MASK)
            n += 1
            top >>= _U64(32)
        times = top // share
        top = (times << _U64(SHARE_BITS)) + start + (top - times * share)
    return n, top


@kernel
def _pop(words: Words, top: np.uint64, starts: Numbers, class_of: Bytes, count: int, positions: Numbers) -> bool:
    n = words.size
    last = -1
    for i in range(positions.size):
        share_at = top & _U64(_LOW_SHARE)
        kind = class_of[share_at]
        start = _U64(starts[kind])
        top = (_U64(starts[kind + 1]) - start) * (top >> _U64(SHARE_BITS)) + share_at - start
        if top <= _U64(_WORD_MASK) and n > 0:
            n -= 1
            top = top << _U64(32) | _U64(words[n])
        extra = _U64(kind >> 2)
        last += _I64((_U64(4 + (kind & 3)) << extra) + (top & ((_U64(1) << extra) - _U64(1)))) - 3
        top >>= extra
        if top <= _U64(_WORD_MASK) and n > 0:
            n -= 1
            top = top << _U64(32) | _U64(words[n])
        if last >= count:
            return False
        positions[i] = last
    return top == _U64(1) and n == 0
