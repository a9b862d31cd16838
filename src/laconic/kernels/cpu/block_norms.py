"""Minimum, maximum, absolute maximum and L2 norm of every block, compiled.

Reference: `reference/stochastic_rounding.py`.

Blocks are split into segments of 16,384 elements, each measured on its own: the number of threads changes no bit.
"""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.reductions import RUN, run_absolute_maximum, run_ends, run_squares
from laconic.kernels.cpu.threads import in_chunks

Array = NDArray[Any]

FLOATS = {torch.float32: np.float32, torch.float64: np.float64}
_MASKS: dict[torch.dtype, Any] = {
    torch.float32: np.int32(2**31 - 1),
    torch.float64: np.int64(2**63 - 1),
}  # all bits but the sign
_SEGMENT = 1 << 14  # elements of a segment


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """See `reference.stochastic_rounding.ranges`."""
    keys, mask = bits_of(values)
    segments, firsts = _segments(lengths)
    lows, highs = np.empty((2, len(segments) - 1), keys.dtype)
    in_chunks(len(segments) - 1, lambda start, stop: _ranges(keys, segments, mask, lows, highs, start, stop), keys.size)
    if len(firsts) < len(lows):
        lows, highs = np.minimum.reduceat(lows, firsts), np.maximum.reduceat(highs, firsts)
    for ends in (lows, highs):
        ends ^= (ends >> (8 * ends.itemsize - 1)) & mask
    return torch.from_numpy(lows).view(values.dtype), torch.from_numpy(highs).view(values.dtype)


def absolute_maxima(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See `reference.stochastic_rounding.absolute_maxima`."""
    return torch.from_numpy(_absolute_maxima(*bits_of(values), *_segments(lengths))).view(values.dtype)


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See `reference.stochastic_rounding.norms`."""
    keys, mask = bits_of(values)
    segments, firsts = _segments(lengths)
    floats = keys.view(FLOATS[values.dtype])
    factors = np.ones(len(lengths), floats.dtype)
    if values.dtype == torch.float64:  # whose squares might overflow or underflow; float32 is squared in float64
        largest = _absolute_maxima(keys, mask, segments, firsts).view(floats.dtype)
        factors = np.ldexp(1.0, -np.clip(np.frexp(np.nan_to_num(largest))[1], -1000, 1000))
    sums, found = np.empty(len(segments) - 1), np.empty(len(segments) - 1, keys.dtype)
    in_chunks(
        len(sums),
        lambda start, stop: _squares(floats, keys, mask, segments, firsts, factors, sums, found, start, stop),
        keys.size,
    )
    if len(firsts) < len(sums):
        sums, found = np.add.reduceat(sums, firsts), np.maximum.reduceat(found, firsts)
    with np.errstate(over="ignore"):  # a norm may be more than a float holds, and is inf then
        roots = (np.sqrt(sums) / factors).astype(floats.dtype)
    return torch.from_numpy(np.maximum(roots, found.view(floats.dtype)))


def _absolute_maxima(keys: Array, mask: Any, segments: Array, firsts: Array) -> Array:  # noqa: ANN401 - a scalar of keys' type
    """Return the absolute maximum of each block, as bits."""
    found = np.empty(len(segments) - 1, keys.dtype)
    in_chunks(len(found), lambda start, stop: _segment_maxima(keys, segments, mask, found, start, stop), keys.size)
    return np.maximum.reduceat(found, firsts) if len(firsts) < len(found) else found


def bits_of(values: Tensor) -> tuple[Array, Any]:
    """Return the values' bits as integers, and the mask of all bits but the sign."""
    mask = _MASKS[values.dtype]
    values = values.detach() if values.requires_grad else values
    return values.contiguous().numpy().view(mask.dtype), mask


@functools.lru_cache(maxsize=16)
def _segments(lengths: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the edges of segments (n + 1,), and each block's first segment (blocks,); both are read-only."""
    edges = block_edges(lengths)
    if max(lengths, default=0) <= _SEGMENT:
        return edges, np.arange(len(lengths))
    n_segments = -(-np.diff(edges) // _SEGMENT)
    firsts = np.cumsum(n_segments) - n_segments
    within = np.arange(n_segments.sum()) - np.repeat(firsts, n_segments)
    return np.append(np.repeat(edges[:-1], n_segments) + within * _SEGMENT, edges[-1]), firsts


@functools.lru_cache(maxsize=16)
def block_edges(lengths: tuple[int, ...]) -> Array:
    """Return where each block begins, and where the last one ends: (blocks + 1,) int64, read-only."""
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges


@kernel
def _ranges(keys: Array, segments: Array, mask: Any, lows: Array, highs: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Write the minimum and the maximum of segments start .. stop - 1.

    Bits are compared as integers in the order of the floats: below zero, all bits but the sign are flipped.

    Args:
        keys: (d,) integers, bits of floats.
        segments: (segments + 1,), edges of the segments.
        mask: All bits but the sign.
        lows: (segments,), overwritten.
        highs: (segments,), overwritten.
        start: First segment.
        stop: Index behind the last segment.
    """
    zero = mask - mask
    for segment in range(start, stop):
        part = keys[segments[segment] : segments[segment + 1]]
        n = part.size // RUN
        low, high = run_ends(part.ctypes.data, n, mask)
        for i in range(n * RUN, part.size):
            key = part[i] ^ (mask if part[i] < zero else zero)
            low = min(low, key)
            high = max(high, key)
        lows[segment], highs[segment] = low, high


@kernel
def _segment_maxima(keys: Array, segments: Array, mask: Any, found: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Write the absolute maximum of segments start .. stop - 1, as bits."""
    for segment in range(start, stop):
        part = keys[segments[segment] : segments[segment + 1]]
        n = part.size // RUN
        largest = run_absolute_maximum(part.ctypes.data, n, mask)
        for i in range(n * RUN, part.size):
            largest = max(largest, part[i] & mask)
        found[segment] = largest


@kernel
def _squares(
    values: Array, keys: Array, mask: Any, segments: Array, firsts: Array, factors: Array, sums: Array,  # noqa: ANN401
    absolute_maxima: Array,
    start: int, stop: int,
) -> None:  # fmt: skip
    """Write the sum of (value * factor)**2 and the absolute maximum of segments start .. stop - 1.

    Args:
        values: (d,) floats.
        keys: The same as bits.
        mask: All bits but the sign.
        segments: (segments + 1,), edges of the segments.
        firsts: (blocks,), each block's first segment.
        factors: (blocks,), powers of two.
        sums: (segments,) float64, overwritten.
        absolute_maxima: (segments,), bits, overwritten.
        start: First segment.
        stop: Index behind the last segment.
    """
    block = np.searchsorted(firsts, start, side="right") - 1
    for segment in range(start, stop):
        if block + 1 < firsts.size and firsts[block + 1] == segment:
            block += 1
        low, high = segments[segment], segments[segment + 1]
        part, bits = values[low:high], keys[low:high]
        n = part.size // RUN
        total, largest = (
            run_squares(part.ctypes.data, n, factors[block]),
            run_absolute_maximum(bits.ctypes.data, n, mask),
        )
        for i in range(n * RUN, part.size):
            value = np.float64(part[i]) * factors[block]
            total += value * value
            largest = max(largest, bits[i] & mask)
        sums[segment], absolute_maxima[segment] = total, largest
