"""ANS-coded symbols, compiled. Every read is within its array, whatever the stream holds.

Reference: `reference/ans_symbols.py`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.reference.ans_gaps import SHARE_BITS, AnsWords, Codes, Numbers

_U64: Any = np.uint64
_LOW_SHARE = (1 << SHARE_BITS) - 1
_WORD_MASK = 0xFFFFFFFF


def ans_encode_symbols(symbols: Codes, starts: Numbers) -> tuple[AnsWords, int]:
    """See `reference.ans_symbols.ans_encode_symbols`."""
    words = np.empty(symbols.size // 2 + 2, dtype=np.uint32)  # a symbol takes at most 14 bits
    n_words, top = _encode(np.ascontiguousarray(symbols), starts.astype(np.uint64), words)
    if n_words < 0:
        raise ValueError("ans_encode_symbols: starts gives no share to a symbol that occurs")
    return words[:n_words].copy(), int(top)


def ans_decode_symbols(words: AnsWords, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """See `reference.ans_symbols.ans_decode_symbols`."""
    symbol_of = np.repeat(np.arange(starts.size - 1, dtype=np.int32), np.diff(starts))
    symbols = np.zeros(k, dtype=np.int32)
    return symbols, bool(_decode(np.ascontiguousarray(words), _U64(top), starts.astype(np.uint64), symbol_of, symbols))


@kernel
def _encode(symbols: Codes, starts: NDArray[np.uint64], words: AnsWords) -> tuple[int, np.uint64]:
    """Encode symbols. Returns the number of words written, -1 if a symbol has no share, and the final state."""
    top = _U64(1)
    n = 0
    for i in range(symbols.size - 1, -1, -1):
        start = starts[symbols[i]]
        share = starts[symbols[i] + 1] - start
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
def _decode(words: AnsWords, top: np.uint64, starts: NDArray[np.uint64], symbol_of: Codes, symbols: Codes) -> bool:
    """Decode symbols, with the symbol of each share from a table. Returns whether the stream is valid."""
    n = words.size
    for i in range(symbols.size):
        share_at = top & _U64(_LOW_SHARE)
        symbol = symbol_of[share_at]
        start = starts[symbol]
        top = (starts[symbol + 1] - start) * (top >> _U64(SHARE_BITS)) + share_at - start
        if top <= _U64(_WORD_MASK) and n > 0:
            n -= 1
            top = top << _U64(32) | _U64(words[n])
        symbols[i] = symbol
    return top == _U64(1) and n == 0
