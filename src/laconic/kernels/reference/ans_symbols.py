"""ANS-coded symbols of a small alphabet, one by one in Python integers: the reference.

Asymmetric numeral systems (Duda, arXiv:1311.2540), with the 2**14 shares and the words of `reference/ans_gaps.py`.
"""

import numpy as np

from laconic.kernels.reference.ans_gaps import SHARE_BITS, AnsWords, Codes, Numbers

_WORD = 1 << 32
_SHARES = 1 << SHARE_BITS


def ans_encode_symbols(symbols: Codes, starts: Numbers) -> tuple[AnsWords, int]:
    """Encode symbols, the last one first.

    Args:
        symbols: (k,) int32, below S.
        starts: (S + 1,) int64, where each of S symbols begins in 0 .. 2**14. A symbol that occurs has a share of at
            least 1.

    Returns:
        The words (n,) uint32, in the order in which they left the state, and the final state.

    Raises:
        ValueError: A symbol that occurs has no share.
    """
    words: list[int] = []
    top = 1
    bounds = starts.tolist()
    for symbol in reversed(symbols.tolist()):
        start = bounds[symbol]
        share = bounds[symbol + 1] - start
        if share == 0:
            raise ValueError("ans_encode_symbols: starts gives no share to a symbol that occurs")
        if top >= share << (64 - SHARE_BITS):
            words.append(top % _WORD)
            top //= _WORD
        top = (top // share << SHARE_BITS) + start + top % share
    return np.array(words, dtype=np.uint32), top


def ans_decode_symbols(words: AnsWords, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """Decode the symbols that `ans_encode_symbols` encoded.

    Args:
        words: (n,) uint32.
        top: The final state of the encoder.
        k: Number of symbols.
        starts: (S + 1,) int64, as for `ans_encode_symbols`.

    Returns:
        The symbols (k,) int32, and whether the stream is valid: nothing is left over.
    """
    left = words.tolist()
    bounds = starts.tolist()
    symbols = np.zeros(k, dtype=np.int32)
    for i in range(k):
        share_at = top % _SHARES
        symbol = int(np.searchsorted(starts, share_at, side="right")) - 1
        symbols[i] = symbol
        top = (bounds[symbol + 1] - bounds[symbol]) * (top // _SHARES) + share_at - bounds[symbol]
        if top < _WORD and left:
            top = top * _WORD + left.pop()
    return symbols, top == 1 and not left
