"""Minimum, maximum, absolute maximum and L2 norm of every block, compiled.

Reference: `reference/stochastic_rounding.py`.

Blocks are split into segments of 16,384 elements, each measured on its own: the number of threads changes no bit.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu.block_edges import edge_of
from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.llvm.reductions import RUN, run_squares
from laconic.kernels.cpu.short_norms import SHORT, short_maxima, short_norms, short_ranges
from laconic.kernels.cpu.threads import in_chunks

Array = NDArray[Any]

FLOATS = {torch.float32: np.float32, torch.float64: np.float64}
MASKS: dict[torch.dtype, Any] = {
    torch.float32: np.int32(2**31 - 1),
    torch.float64: np.int64(2**63 - 1),
}
"""All bits but the sign."""
_SEGMENT = 1 << 14  # elements of a segment


def ranges(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """See `reference.stochastic_rounding.ranges`."""
    blocks = BlockLengths.of(lengths)
    if blocks.size == 1:
        copied = _copied(values)
        return copied, copied
    keys, mask = bits_of(values)
    segments = _segments(blocks)
    size, edges = segments.size, segments.edges
    lows, highs = _new_numbers(segments.n, keys.dtype), _new_numbers(segments.n, keys.dtype)
    in_chunks(segments.n, lambda start, stop: _ranges(keys, size, edges, mask, lows, highs, start, stop), keys.size)
    if segments.firsts.size:
        lows, highs = np.minimum.reduceat(lows, segments.firsts), np.maximum.reduceat(highs, segments.firsts)
    return _as_ends(lows, values.dtype), _as_ends(highs, values.dtype)


def ends_of_keys(found: Sequence[tuple[Any, Any]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the minimum and the maximum, (1,) each, of parts of a vector whose ends are known as keys; see `_ranges`.

    Args:
        found: Keys of the low and the high end of each part, one at least.
        dtype: Type of the vector.
    """
    lows, highs = np.array(found, MASKS[dtype].dtype).T
    return _as_ends(lows.min(keepdims=True), dtype), _as_ends(highs.max(keepdims=True), dtype)


def _as_ends(keys: Array, dtype: torch.dtype) -> Tensor:
    """Return the numbers (n,) that keys (n,) stand for, in their memory; see `_ranges`."""
    _in_order(keys, MASKS[dtype])
    return torch.from_numpy(keys).view(dtype)


def absolute_maxima(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """See `reference.stochastic_rounding.absolute_maxima`."""
    blocks = BlockLengths.of(lengths)
    if blocks.size == 1:
        return _copied(values).abs_()
    return torch.from_numpy(_absolute_maxima(*bits_of(values), _segments(blocks))).view(values.dtype)


def norms(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """See `reference.stochastic_rounding.norms`."""
    blocks = BlockLengths.of(lengths)
    if blocks.size == 1:
        return _copied(values).abs_()
    keys, mask = bits_of(values)
    segments = _segments(blocks)
    size, edges, firsts = segments.size, segments.edges, segments.firsts
    floats = keys.view(FLOATS[values.dtype])
    if 0 < size < SHORT and values.dtype == torch.float32:
        made = new_vector(segments.n, values.dtype)
        of_blocks = made.numpy()
        in_chunks(segments.n, lambda start, stop: short_norms(floats, size, of_blocks, start, stop), keys.size)
        return made
    factors = np.ones(len(lengths), floats.dtype)
    if values.dtype == torch.float64:  # whose squares might overflow or underflow; float32 is squared in float64
        largest = _absolute_maxima(keys, mask, segments).view(floats.dtype)
        factors = np.ldexp(1.0, -np.clip(np.frexp(np.nan_to_num(largest))[1], -1000, 1000))
    sums, found = np.empty(segments.n), np.empty(segments.n, keys.dtype)
    in_chunks(
        segments.n,
        lambda start, stop: _squares(floats, keys, mask, size, edges, firsts, factors, sums, found, start, stop),
        keys.size,
    )
    if firsts.size:
        sums, found = np.add.reduceat(sums, firsts), np.maximum.reduceat(found, firsts)
    with np.errstate(over="ignore"):  # a norm may be more than a float holds, and is inf then
        roots = (np.sqrt(sums) / factors).astype(floats.dtype)
    return torch.from_numpy(np.maximum(roots, found.view(floats.dtype)))


def _copied(values: Tensor) -> Tensor:
    """Return a copy, which is all that blocks of one element need."""
    return new_vector(values.numel(), values.dtype).copy_(values.detach())


def _absolute_maxima(keys: Array, mask: Any, segments: "_Segments") -> Array:  # noqa: ANN401 - a scalar of keys' type
    """Return the absolute maximum of each block, as bits."""
    found, size, edges = _new_numbers(segments.n, keys.dtype), segments.size, segments.edges
    in_chunks(segments.n, lambda start, stop: _segment_maxima(keys, size, edges, mask, found, start, stop), keys.size)
    return np.maximum.reduceat(found, segments.firsts) if segments.firsts.size else found


def _new_numbers(count: int, dtype: Any) -> Array:  # noqa: ANN401 - numpy's type of integers
    """Return integers (count,) with arbitrary content, in memory that is used again."""
    made: Array = new_vector(count, torch.int32 if dtype == np.int32 else torch.int64).numpy()
    return made


def bits_of(values: Tensor) -> tuple[Array, Any]:
    """Return the values' bits as integers, and the mask of all bits but the sign."""
    mask = MASKS[values.dtype]
    values = values.detach() if values.requires_grad else values
    return values.contiguous().numpy().view(mask.dtype), mask


@dataclass(frozen=True, kw_only=True)
class _Segments:
    """Parts of blocks, of at most _SEGMENT elements."""

    n: int
    size: int  # of all segments but the last; 0 where `edges` has them
    edges: Array  # (segments + 1,) int64; empty where there is a size
    firsts: Array  # (blocks,) int64, each block's first segment; empty where segments are the blocks


@functools.lru_cache(maxsize=16)
def _segments(blocks: BlockLengths) -> _Segments:
    """Return the segments of blocks; the arrays are read-only."""
    if blocks.longest <= _SEGMENT:
        return _Segments(n=len(blocks), size=blocks.size, edges=blocks.sparse_edges, firsts=blocks.sparse_edges[:0])
    edges = blocks.edges
    n_segments = -(-np.diff(edges) // _SEGMENT)
    firsts = np.cumsum(n_segments) - n_segments
    within = np.arange(n_segments.sum()) - np.repeat(firsts, n_segments)
    edges = np.append(np.repeat(edges[:-1], n_segments) + within * _SEGMENT, edges[-1])
    return _Segments(n=len(edges) - 1, size=0, edges=edges, firsts=firsts)


@kernel
def _ranges(
    keys: Array, size: int, edges: Array, mask: Any, lows: Array, highs: Array, start: int, stop: int  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the minimum and the maximum of segments start .. stop - 1.

    Bits are compared as integers in the order of the floats: below zero, all bits but the sign are flipped.

    Args:
        keys: (d,) integers, bits of floats.
        size: The size of all segments but the last; 0 where `edges` has them.
        edges: (segments + 1,) int64, where segments begin and end; empty where there is a size.
        mask: All bits but the sign.
        lows: (segments,), overwritten.
        highs: (segments,), overwritten.
        start: First segment.
        stop: Index behind the last segment.
    """
    if 0 < size < SHORT:
        short_ranges(keys, size, mask, lows, highs, start, stop)
        return
    zero = mask - mask
    begin = edge_of(start, size, edges, keys.size)
    for segment in range(start, stop):
        end = edge_of(segment + 1, size, edges, keys.size)
        if end - begin >= RUN:  # a slice costs more than a short segment
            lows[segment], highs[segment] = keys_in(keys[begin:end], mask, mask, ~mask)
            begin = end
            continue
        low, high = mask, ~mask
        for i in range(begin, end):
            key = keys[i] ^ (mask if keys[i] < zero else zero)
            low = min(low, key)
            high = max(high, key)
        lows[segment], highs[segment], begin = low, high, end


@kernel
def _in_order(keys: Array, mask: Any) -> None:  # noqa: ANN401
    """Turn bits of floats into integers in the order of the floats, or back."""
    for i in range(keys.size):
        keys[i] ^= mask if keys[i] < mask - mask else mask - mask


@inlined
def keys_in(bits: Array, mask: Any, low: Any, high: Any) -> Any:  # noqa: ANN401
    """Return the smaller of `low` and the minimum, and the larger of `high` and the maximum; see `_ranges`.

    Args:
        bits: (n,) integers, bits of floats.
        mask: All bits but the sign.
        low: A key; mask for none.
        high: A key; ~mask for none.
    """
    kind = type(mask)  # else numba widens every key to 64 bits, and the loop loses lanes
    lowest, highest = kind(low), kind(high)
    for i in range(bits.size):
        key = kind(bits[i] ^ (mask if bits[i] < 0 else kind(0)))
        lowest, highest = min(lowest, key), max(highest, key)
    return lowest, highest


@inlined
def _largest(part: Array, mask: Any) -> Any:  # noqa: ANN401
    """Return the absolute maximum of a slice, as bits."""
    kind = type(mask)  # as in `keys_in`
    largest = kind(0)
    for i in range(part.size):
        largest = max(largest, kind(part[i] & mask))
    return largest


@kernel
def _segment_maxima(
    keys: Array, size: int, edges: Array, mask: Any, found: Array, start: int, stop: int  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the absolute maximum of segments start .. stop - 1, as bits."""
    if 0 < size < SHORT:
        short_maxima(keys, size, mask, found, start, stop)
        return
    begin = edge_of(start, size, edges, keys.size)
    for segment in range(start, stop):
        end = edge_of(segment + 1, size, edges, keys.size)
        largest = mask - mask
        if end - begin >= RUN:
            largest, begin = _largest(keys[begin:end], mask), end
        for i in range(begin, end):
            largest = max(largest, keys[i] & mask)
        found[segment], begin = largest, end


@kernel
def _squares(
    values: Array, keys: Array, mask: Any, size: int, edges: Array, firsts: Array, factors: Array, sums: Array,  # noqa: ANN401
    absolute_maxima: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Write the sum of (value * factor)**2 and the absolute maximum of segments start .. stop - 1.

    Args:
        values: (d,) floats.
        keys: The same as bits.
        mask: All bits but the sign.
        size: The size of all segments but the last; 0 where `edges` has them.
        edges: (segments + 1,) int64, where segments begin and end; empty where there is a size.
        firsts: (blocks,), each block's first segment; empty where segments are the blocks.
        factors: (blocks,), powers of two.
        sums: (segments,) float64, overwritten.
        absolute_maxima: (segments,), bits, overwritten.
        start: First segment.
        stop: Index behind the last segment.
    """
    block = np.searchsorted(firsts, start, side="right") - 1 if firsts.size else start - 1
    begin = edge_of(start, size, edges, keys.size)
    for segment in range(start, stop):
        if firsts.size == 0 or (block + 1 < firsts.size and firsts[block + 1] == segment):
            block += 1
        end = edge_of(segment + 1, size, edges, keys.size)
        total, largest, factor = 0.0, mask - mask, factors[block]
        if end - begin >= RUN:
            n = (end - begin) // RUN
            total = run_squares(values[begin:end].ctypes.data, n, factor)
            largest = _largest(keys[begin:end], mask)
            begin += n * RUN
        for i in range(begin, end):
            value = np.float64(values[i]) * factor
            total += value * value
            largest = max(largest, keys[i] & mask)
        sums[segment], absolute_maxima[segment], begin = total, largest, end
