"""ANS-coded gaps, compiled. Every read is within its array, whatever the stream holds.

Reference: `reference/ans_gaps.py`.
"""

from typing import Any

import numpy as np

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.reference.ans_gaps import SHARE_BITS, AnsWords, Bytes, Numbers

_U64 = np.uint64
_I64: Any = np.int64  # numba makes floats of signed and unsigned integers together
_LOW_SHARE = (1 << SHARE_BITS) - 1
_WORD_MASK = 0xFFFFFFFF
_DO_NOT_ASCEND = -2
_FOUR = 1025 << 2  # the float 4.0 without its last 50 bits


def ans_encode_gaps(positions: Numbers, starts: Numbers) -> tuple[AnsWords, int]:
    """See `reference.ans_gaps.ans_encode_gaps`."""
    words = np.empty(2 * positions.size, dtype=np.uint32)  # at most one before each number, and a gap is two numbers
    n_words, top = _encode(np.ascontiguousarray(positions), starts, words)
    if n_words == _DO_NOT_ASCEND:
        raise ValueError("ans_encode_gaps: positions must ascend, each once, from 0 on")
    if n_words < 0:
        raise ValueError("ans_encode_gaps: starts gives no share to the class of a gap that occurs")
    return words[:n_words].copy(), int(top)


def ans_decode_gaps(words: AnsWords, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """See `reference.ans_gaps.ans_decode_gaps`."""
    class_of = np.repeat(np.arange(starts.size - 1, dtype=np.uint8), np.diff(starts))
    positions = np.zeros(k, dtype=np.int64)
    return positions, bool(_decode(np.ascontiguousarray(words), _U64(top), starts, class_of, count, positions))


@kernel
def _encode(positions: Numbers, starts: Numbers, words: AnsWords) -> tuple[int, np.uint64]:
    """Encode gaps. Returns the number of words written, and the final state.

    The number is -1 if a class has no share, and _DO_NOT_ASCEND if positions do not.
    """
    top = _U64(1)
    n = 0
    for i in range(positions.size - 1, -1, -1):
        raised = positions[i] - (positions[i - 1] if i else -1) + 3
        if raised < 4:
            return _DO_NOT_ASCEND, top
        kind = (np.float64(raised).view(np.int64) >> 50) - _FOUR  # exponent and two bits of mantissa: the class
        extra = _U64(kind >> 2)
        rest = _U64(raised) & ((_U64(1) << extra) - _U64(1))
        if top >> _U64(32) >> (_U64(32) - extra) != _U64(0):
            words[n] = top & _U64(_WORD_MASK)
            n += 1
            top >>= _U64(32)
        top = top << extra | rest
        start = _U64(starts[kind])
        share = _U64(starts[kind + 1]) - start
        if share == _U64(0):
            return -1, top
        if top >> _U64(64 - SHARE_BITS) >= share:
            words[n] = top & _U64(_WORD_MASK)
            n += 1
            top >>= _U64(32)
        times = top // share
        top = (times << _U64(SHARE_BITS)) + start + (top - times * share)
    return n, top


@kernel
def _decode(words: AnsWords, top: np.uint64, starts: Numbers, class_of: Bytes, count: int, positions: Numbers) -> bool:
    """Decode gaps into `positions`, with the class of each share from a table. Returns whether the stream is valid."""
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
