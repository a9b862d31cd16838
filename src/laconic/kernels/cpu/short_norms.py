"""Minimum, maximum, norm and mean magnitude of short blocks of one size, compiled.

For `cpu/block_norms.py` and `cpu/residuals.py`, with the bits of their other loops. Sizes of 2, 3, 4 and 8 are known
when loops are compiled, so that a register of blocks is measured at a time. Only the last of all blocks may be shorter.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from laconic.kernels.cpu.compile import kernel

Array = NDArray[Any]

SHORT = 32
"""Blocks of one size below this are short."""


@kernel
def short_ranges(keys: Array, size: int, mask: Any, lows: Array, highs: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Write the minimum and the maximum of blocks, in the floats' order. Arguments as for `block_norms._ranges`."""
    full = min(stop, keys.size // size)
    part, low, high = keys[start * size : full * size], lows[start:full], highs[start:full]
    if size == 2:
        _ranges(part, 2, mask, low, high)
    elif size == 3:
        _ranges(part, 3, mask, low, high)
    elif size == 4:
        _ranges(part, 4, mask, low, high)
    elif size == 8:
        _ranges(part, 8, mask, low, high)
    else:
        _ranges(part, size, mask, low, high)
    if full < stop:
        _ranges(keys[full * size :], keys.size - full * size, mask, lows[full:stop], highs[full:stop])


@kernel
def _ranges(keys: Array, size: int, mask: Any, lows: Array, highs: Array) -> None:  # noqa: ANN401
    kind = type(mask)  # as in `block_norms.keys_in`
    for block in range(lows.size):
        low, high = mask, kind(~mask)
        for j in range(size):
            bits = keys[block * size + j]
            key = kind(bits ^ (mask if bits < 0 else kind(0)))
            low, high = min(low, key), max(high, key)
        lows[block], highs[block] = low, high


@kernel
def short_maxima(keys: Array, size: int, mask: Any, found: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Write the absolute maximum of blocks, as bits."""
    full = min(stop, keys.size // size)
    part, out = keys[start * size : full * size], found[start:full]
    if size == 2:
        _maxima(part, 2, mask, out)
    elif size == 3:
        _maxima(part, 3, mask, out)
    elif size == 4:
        _maxima(part, 4, mask, out)
    elif size == 8:
        _maxima(part, 8, mask, out)
    else:
        _maxima(part, size, mask, out)
    if full < stop:
        _maxima(keys[full * size :], keys.size - full * size, mask, found[full:stop])


@kernel
def _maxima(keys: Array, size: int, mask: Any, found: Array) -> None:  # noqa: ANN401
    kind = type(mask)  # as in `block_norms.keys_in`
    for block in range(found.size):
        largest = kind(0)
        for j in range(size):
            largest = max(largest, kind(keys[block * size + j] & mask))
        found[block] = largest


@kernel
def short_norms(values: Array, size: int, roots: Array, start: int, stop: int) -> None:
    """Write the L2 norms of blocks of float32 values, whose squares fit into float64."""
    full = min(stop, values.size // size)
    part, out = values[start * size : full * size], roots[start:full]
    if size == 2:
        _norms(part, 2, out)
    elif size == 3:
        _norms(part, 3, out)
    elif size == 4:
        _norms(part, 4, out)
    elif size == 8:
        _norms(part, 8, out)
    else:
        _norms(part, size, out)
    if full < stop:
        _norms(values[full * size :], values.size - full * size, roots[full:stop])


@kernel
def _norms(values: Array, size: int, roots: Array) -> None:
    for block in range(roots.size):
        squares, largest = 0.0, np.float32(0)
        for j in range(size):
            value = abs(values[block * size + j])
            squares += np.float64(value) * np.float64(value)
            largest = max(largest, value)
        root = np.float32(np.sqrt(squares))
        roots[block] = largest if root < largest else root  # NaN where the sum is


@kernel
def short_means(values: Array, size: int, means: Array, start: int, stop: int) -> None:
    """Write the mean magnitudes of blocks, added up in float64."""
    full = min(stop, values.size // size)
    part, out = values[start * size : full * size], means[start:full]
    if size == 1:
        for i in range(out.size):
            out[i] = abs(part[i])
    elif size == 2:
        _means(part, 2, out)
    elif size == 3:
        _means(part, 3, out)
    elif size == 4:
        _means(part, 4, out)
    elif size == 8:
        _means(part, 8, out)
    else:
        _means(part, size, out)
    if full < stop:
        _means(values[full * size :], values.size - full * size, means[full:stop])


@kernel
def _means(values: Array, size: int, means: Array) -> None:
    for block in range(means.size):
        total = 0.0
        for j in range(size):
            total += np.float64(abs(values[block * size + j]))
        means[block] = total / np.float64(size)
