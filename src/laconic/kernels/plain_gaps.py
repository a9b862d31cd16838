"""Gaps between positions on a stack of bits, one by one in ordinary Python: the reference.

Each gap's place depends on all that were pushed before it, so this is work for one thread of the host.
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
