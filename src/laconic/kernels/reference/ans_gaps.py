"""ANS-coded gaps between positions, one by one in Python integers: the reference.

Asymmetric numeral systems (Duda, arXiv:1311.2540) keep the message so far in one number, the state. Each gap changes
the state that the next one starts from, so this is work for one thread of the host.
"""

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
AnsWords = NDArray[np.uint32]
Codes = NDArray[np.int32]

SHARE_BITS = 14  # the shares of all classes of gaps add up to 2**14
_SHARES = 1 << SHARE_BITS
_WORD = 1 << 32


def ans_encode_gaps(positions: Numbers, starts: Numbers) -> tuple[AnsWords, int]:
    """Encode the gaps before positions, the last one first.

    A gap plus 4 is written as (4 + m) * 2**e + rest, with m < 4 and rest < 2**e. The e bits of rest are encoded first,
    then the class 4e + m. The state is in 1 .. 2**64 - 1; its lowest 32 bits move to the words where it would overflow.

    Args:
        positions: (k,) int64, ascending, each once.
        starts: (129,) int64, where each class begins in 0 .. 2**14; those behind the last class are 2**14. A class that
            occurs has a share of at least 1.

    Returns:
        The words (n,) uint32, in the order in which they left the state, and the final state.

    Raises:
        ValueError: A class that occurs has no share, or positions do not ascend.
    """
    if (np.diff(positions, prepend=-1) < 1).any():
        raise ValueError("ans_encode_gaps: positions must ascend, each once, from 0 on")
    words: list[int] = []
    top = 1

    def encode(number: int, start: int, share: int, bits: int) -> int:
        """Encode a number below `share` of 2**bits. May move the state's lowest word to `words` first."""
        nonlocal top
        if top >= share << (64 - bits):
            words.append(top % _WORD)
            top //= _WORD
        return (top // share << bits) + start + top % share + number

    for gap in reversed(np.diff(positions, prepend=-1).tolist()):
        raised = gap + 3  # the difference of two neighbors is the gap plus 1
        extra = raised.bit_length() - 3
        top = encode(raised % (1 << extra), 0, 1, extra)
        kind = 4 * extra + (raised >> extra) - 4
        start, stop = starts[kind : kind + 2].tolist()
        if start == stop:
            raise ValueError("ans_encode_gaps: starts gives no share to the class of a gap that occurs")
        top = encode(0, start, stop - start, SHARE_BITS)
    return np.array(words, dtype=np.uint32), top


def ans_decode_gaps(words: AnsWords, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """Decode the gaps that `ans_encode_gaps` encoded.

    Args:
        words: (n,) uint32.
        top: The final state of the encoder.
        k: Number of positions.
        starts: (129,) int64, as for `ans_encode_gaps`.
        count: Number of coordinates.

    Returns:
        The positions (k,) int64, and whether the stream is valid. It is not if a position reaches `count`, or if
        anything is left over; the positions mean nothing then.
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
