"""Bits of position streams, number by number in ordinary Python: the reference. wire/position_codes.py says what for.

A stream's bits fill bytes from the highest bit down, and a number's highest bit comes first.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Words = NDArray[np.uint32]
Codes = NDArray[np.int32]

SHARE_BITS = 14  # the shares of all gap classes add up to 2**14
_SHARES = 1 << SHARE_BITS
_WORD = 1 << 32


def put_numbers(numbers: Numbers, width: int) -> Bytes:
    """Numbers (k,) below 2**width, one behind the other: (ceil(k * width / 8),) uint8. width: 1 .. 32."""
    return np.packbits(np.array([_digits(number, width) for number in numbers.tolist()], dtype=np.uint8))


def take_numbers(data: Bytes, k: int, width: int) -> Numbers:
    """`k` numbers of `width` bits (1 .. 32) from the first bit on: (k,) int64. `data` has k * width bits or more."""
    bits = np.unpackbits(data, count=k * width)
    return np.array([_number(bits[at : at + width]) for at in range(0, k * width, width)], dtype=np.int64)


def put_runs(positions: Numbers, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Bytes, int]:
    """What `take_runs` takes, (ceil(n_bits / 8),) uint8, zero behind the bits used, and how many these are.

    positions: (k,), ascending, each once; step: at most 2**width; n_bits: enough for all of them.
    """
    bits = np.zeros(n_bits, dtype=np.uint8)
    at, base = 0, 0
    for position in positions.tolist():
        run, number = divmod(position - base, step)
        start = at + run
        at = start + 1 + width
        bits[start:at] = [1, *_digits(number, width)]
        base = position + 1 if from_last else base + run * step
    return np.packbits(bits), at


def take_runs(
    data: Bytes, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Numbers, int]:
    """k times a run of zeros, a one and a number of `width` bits (0 .. 32): positions (k,) int64, and the bits used.

    A run of r goes r * step onward, and the number, which is below `step`, is added to that. from_last: a run starts
    behind the last position, and else where the last run led. The bits used are -1, and the positions worth nothing,
    if the stream ends early, a number is not below `step`, or positions do not ascend or reach `count`.
    """
    bits = np.unpackbits(data, count=n_bits)
    line = bits.tobytes()
    positions = np.zeros(k, dtype=np.int64)
    at, base, last = 0, 0, -1
    for i in range(k):
        one = line.find(b"\1", at)
        stop = one + 1 + width
        if one < 0 or stop > n_bits:
            return positions, -1
        number = _number(bits[one + 1 : stop])
        base += (one - at) * step
        position = base + number
        if number >= step or position <= last or position >= count:
            return positions, -1
        positions[i] = last = position
        if from_last:
            base = position + 1
        at = stop
    return positions, at


def push_gaps(positions: Numbers, starts: Numbers) -> tuple[Words, int]:
    """The gaps before positions (k,) onto a stack, last one first: words (n,) uint32, lowest first, and the top.

    The top is in 1 .. 2**64 - 1. A gap plus 4 is (4 + m) * 2**e + rest with m < 4 and rest < 2**e: e bits of rest,
    then class 4e + m. starts: (129,) where each class begins among the 2**14 shares; the last entries are 2**14. A
    class in use has at least one share.
    """
    words: list[int] = []
    top = 1

    def push(number: int, start: int, share: int, bits: int) -> int:
        """Asymmetric numeral systems (Duda, arXiv:1311.2540): `share` of 2**bits, the number's place within it."""
        nonlocal top
        if top >= share << (64 - bits):
            words.append(top % _WORD)
            top //= _WORD
        return (top // share << bits) + start + top % share + number

    for gap in reversed(np.diff(positions, prepend=-1).tolist()):
        raised = gap + 3  # of two neighbours' difference one is no gap
        extra = raised.bit_length() - 3
        top = push(raised % (1 << extra), 0, 1, extra)
        kind = 4 * extra + (raised >> extra) - 4
        start, stop = starts[kind : kind + 2].tolist()
        top = push(0, start, stop - start, SHARE_BITS)
    return np.array(words, dtype=np.uint32), top


def pop_gaps(words: Words, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """The positions (k,) int64 whose gaps `push_gaps` put there, and whether the stack was just theirs.

    False, and the positions worth nothing, if a position reaches `count` or anything is left over.
    """
    left = words.tolist()
    positions = np.zeros(k, dtype=np.int64)
    last = -1
    for i in range(k):
        share_at = top % _SHARES
        kind = int(np.searchsorted(starts, share_at, side="right")) - 1
        start, stop = starts[kind : kind + 2].tolist()
        top = (stop - start) * (top // _SHARES) + share_at - start
        if top < _WORD and left:
            top = top * _WORD + left.pop()
        extra, third = divmod(kind, 4)
        rest = top % (1 << extra)
        top >>= extra
        if top < _WORD and left:
            top = top * _WORD + left.pop()
        last += ((4 + third) << extra) + rest - 3
        if last >= count:
            return positions, False
        positions[i] = last
    return positions, top == 1 and not left


def _number(bits: Bytes) -> int:
    """Bits, the highest first, as a number."""
    return int("0" + "".join(map(str, bits.tolist())), 2)


def _digits(number: int, width: int) -> list[int]:
    """`width` bits of a number, the highest first."""
    return [number >> place & 1 for place in reversed(range(width))]
