"""Bit streams of positions, compiled. Every read is within its array, whatever the stream holds.

Reference: `reference/position_streams.py`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.reference.ans_gaps import Numbers

_U64 = np.uint64
_I64: Any = np.int64  # numba makes floats of signed and unsigned integers together
_Long = NDArray[np.uint64]
_LEADING = np.array([8 - byte.bit_length() for byte in range(256)], dtype=np.uint64)  # zeros before its first one


def ascending(positions: Tensor, count: int) -> bool:
    """See `reference.position_streams.ascending`."""
    return bool(_ascending(positions.contiguous().numpy(), count))


def put_numbers(numbers: Tensor, width: int) -> tuple[Tensor, bool]:
    """See `reference.position_streams.put_numbers`."""
    n_bits = numbers.numel() * width
    words = np.zeros(n_bits // 64 + 1, dtype=np.uint64)
    ascend = bool(_put(numbers.contiguous().numpy(), width, words))
    return _bytes(words, n_bits), ascend


def take_numbers(data: Tensor, k: int, width: int) -> tuple[Tensor, bool]:
    """See `reference.position_streams.take_numbers`."""
    numbers, ascend = _take(_long_words(data), k, width)
    return torch.from_numpy(numbers), bool(ascend)


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """See `reference.position_streams.put_runs`."""
    words = np.zeros(n_bits // 64 + 1, dtype=np.uint64)
    used = int(_put_runs(positions.contiguous().numpy(), width, step, from_last, n_bits, words))
    return _bytes(words, n_bits), used


def take_runs(
    data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Tensor, int]:
    """See `reference.position_streams.take_runs`."""
    positions = np.zeros(k, dtype=np.int64)
    used = int(_take_runs(_long_words(data), n_bits, width, step, count, from_last, _LEADING, positions))
    return torch.from_numpy(positions), used


def _long_words(data: Tensor) -> _Long:
    """Return the stream as integers of 64 bits, with at least one 0 behind: a window may start at any bit."""
    padded = np.zeros(8 * (data.numel() // 8 + 2), dtype=np.uint8)
    padded[: data.numel()] = data.numpy()
    return padded.view(">u8").astype(np.uint64)


def _bytes(words: _Long, n_bits: int) -> Tensor:
    """Return the first `n_bits` of the stream, in full bytes."""
    return torch.from_numpy(words.astype(">u8").view(np.uint8)[: (n_bits + 7) // 8])


@kernel
def _ascending(positions: Numbers, count: int) -> bool:
    if positions.size == 0:
        return True
    within: bool = positions[0] >= 0 and positions[-1] < count
    later = positions[1:]
    for i in range(later.size):  # no early end, so that several are compared at a time
        within &= later[i] > positions[i]
    return within


@kernel
def _write(words: _Long, number: np.uint64, at: int, width: int) -> None:
    """Write a number of `width` bits, 1 .. 33, from bit `at` on."""
    free_bits = 64 - (at & 63)  # bits left in the word where it begins
    if width <= free_bits:
        words[at >> 6] |= number << _U64(free_bits - width)
    else:
        words[at >> 6] |= number >> _U64(width - free_bits)
        words[(at >> 6) + 1] |= number << _U64(64 - width + free_bits)


@kernel
def _put(numbers: Numbers, width: int, words: _Long) -> bool:
    """Write numbers. Returns whether they ascend, and fit; otherwise the stream means nothing."""
    last, low_bits = -1, (_U64(1) << _U64(width)) - _U64(1)
    ascend = True
    for i in range(numbers.size):
        ascend &= numbers[i] > last
        last = numbers[i]
        _write(words, _U64(last) & low_bits, i * width, width)
    return ascend and last <= _I64(low_bits)


@kernel
def _put_runs(positions: Numbers, width: int, step: int, from_last: bool, n_bits: int, words: _Long) -> int:
    at, base, last = 0, 0, -1
    for i in range(positions.size):
        if positions[i] <= last:
            return -1
        last = positions[i]
        ahead = last - base
        run = _I64(_U64(ahead) // _U64(step))
        at += run
        if at + 1 + width > n_bits:
            return -1
        _write(words, _U64(ahead - run * step) | _U64(1) << _U64(width), at, 1 + width)
        at += 1 + width
        base = last + 1 if from_last else base + run * step
    return at


@kernel
def _window(words: _Long, at: int) -> np.uint64:
    """Return the 64 bits from bit `at` on."""
    offset = _U64(at & 63)
    high: np.uint64 = words[at >> 6] << offset | words[(at >> 6) + 1] >> _U64(1) >> (_U64(63) - offset)
    return high


@kernel
def _take(words: _Long, k: int, width: int) -> tuple[Numbers, bool]:
    """Return numbers, and whether they ascend."""
    numbers, last = np.empty(k, dtype=np.int64), -1
    ascend = True
    for i in range(k):
        number = _I64(_window(words, i * width) >> _U64(64 - width))
        ascend &= number > last
        numbers[i] = last = number
    return numbers, ascend


@kernel
def _clear(words: _Long, at: int) -> bool:
    """Return whether no bit from `at` on is set."""
    rest_of_word: np.uint64 = words[at >> 6] << _U64(at & 63)
    return rest_of_word == _U64(0) and not words[(at >> 6) + 1 :].any()


@kernel
def _take_runs(
    words: _Long, n_bits: int, width: int, step: int, count: int, from_last: bool, leading: _Long, positions: Numbers
) -> int:
    at, base, last = 0, 0, -1
    max_run = count // step + 1
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
        if at > n_bits or run > max_run:
            return -1
        number = _I64(window << (zeros + _U64(1)) >> _U64(1) >> _U64(63 - width))
        base += run * step
        position = base + number
        if number >= step or position <= last or position >= count:
            return -1
        positions[i] = last = position
        if from_last:
            base = position + 1
    return at if _clear(words, at) else -1
