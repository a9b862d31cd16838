"""Counting set bits, compiled, on one thread. Reference: `reference/popcount.py`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.vectors import population

Numbers = NDArray[np.int64]


def count_ones(packed: Tensor, bounds: Sequence[int]) -> list[int]:
    """See `reference.popcount.count_ones`."""
    data = packed.contiguous().numpy()
    words = data[: data.size // 8 * 8].view(np.uint64)
    below = np.empty(len(bounds), np.int64)
    _count_below(words, data[words.size * 8 :], np.array(bounds, np.int64), below)
    return [high - low for low, high in pairwise(below.tolist())]  # of a few numbers, faster than numpy's difference


@kernel
def _count_below(words: NDArray[np.uint64], rest: NDArray[np.uint8], bounds: Numbers, below: Numbers) -> None:
    """Count the set bits below each bound.

    Args:
        words: Full words of the stream.
        rest: The bytes behind them, fewer than 8.
        bounds: Bit numbers, ascending.
        below: Overwritten; below[i] is the number of set bits among the first bounds[i].
    """
    last: Any = uint64(0)
    for place in range(rest.size):
        last |= uint64(rest[place]) << uint64(8 * place)
    n: int = 0
    at = 0
    for i in range(bounds.size):
        full = bounds[i] // 64
        for place in range(at, full):
            n += population(words[place])
        at = full
        word = words[full] if full < words.size else last
        low_bits = (uint64(1) << uint64(bounds[i] - full * 64)) - uint64(1)
        below[i] = n + int64(population(word & low_bits))
