"""Symbols of a small alphabet on a stack of bits, one by one in ordinary Python: the reference.

Asymmetric numeral systems (Duda, arXiv:1311.2540), with the 2**14 shares and the words of `plain_gaps`.
"""

import numpy as np

from laconic.kernels.plain_gaps import SHARE_BITS, Codes, Numbers, Words

_WORD = 1 << 32
_SHARES = 1 << SHARE_BITS


def push_symbols(symbols: Codes, starts: Numbers) -> tuple[Words, int]:
    """Symbols (k,) int32 onto a stack, last one first: words (n,) uint32, lowest first, and the top.

    starts: (S + 1,) where each of S symbols begins among the shares. One that is there has a share at least.
    """
    words: list[int] = []
    top = 1
    bounds = starts.tolist()
    for symbol in reversed(symbols.tolist()):
        start = bounds[symbol]
        share = bounds[symbol + 1] - start
        if top >= share << (64 - SHARE_BITS):
            words.append(top % _WORD)
            top //= _WORD
        top = (top // share << SHARE_BITS) + start + top % share
    return np.array(words, dtype=np.uint32), top


def pop_symbols(words: Words, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """The symbols (k,) int32 that `push_symbols` put there, and whether the stack was just theirs."""
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
