"""The fractional quantizer, compiled: one pass for the range, one for levels, means and packed codes.

Reference: `reference/fractional.py`. Codes are the same bits. Means are added in the values' own type within 128
elements, in eight or sixteen chains, and in float64 beyond; for codes of more than four bits, and magnitudes near the
largest float, in float64 throughout.
"""

import math
from typing import Any

import numpy as np
import torch
from numba import float64, uint8, uint16, uint32
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.block_norms import FLOATS, bits_of
from laconic.kernels.cpu.code_tiles import TILE, code_buffer, pack_tile, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.level_sums import ROWS, SPAN, level_spans, magnitude_spans
from laconic.kernels.cpu.llvm.reductions import LANES
from laconic.kernels.cpu.threads import CHUNK, in_chunks
from laconic.kernels.reference.fractional import bounds_array

Array = NDArray[Any]

_LANES = 8  # of a search: neighbors of one level are added to different sums, so that none waits for another
_FEW = 8  # up to so many levels a magnitude is compared with each bound; above, a binary search is used
_MAX_MAGNITUDE = {torch.float32: 2.0**123, torch.float64: math.inf}  # sixteen such magnitudes add up to no infinity


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """See `reference.fractional.fractional_codes`."""
    n_levels = 1 << (bits - 1)
    keys, mask = bits_of(values)
    floats = keys.view(FLOATS[values.dtype])
    lows, highs, largest, smallest = _magnitudes(keys, mask, floats.dtype)
    bounds = bounds_array(largest, smallest, bits, double=floats.itemsize == 8)
    out = np.empty((bits * floats.size + 7) // 8, np.uint8)
    if n_levels <= _FEW and not largest > _MAX_MAGNITUDE[values.dtype]:
        filled = np.empty(ROWS, floats.dtype)
        filled.fill(-1)  # nothing is below -1
        filled[: bounds.size] = bounds
        n_chunks = -(-floats.size // CHUNK)  # each has its own sums, whichever thread adds them
        sums, counts = np.zeros((n_chunks, ROWS)), np.zeros((n_chunks, ROWS), np.int64)
        minus = np.uint32(n_levels)
        in_chunks(
            floats.size,
            lambda start, stop: _level_chunks(floats, filled, lows, highs, minus, bits, out, sums, counts, start, stop),
        )
    else:
        sums, counts = np.zeros((_LANES, n_levels)), np.zeros((_LANES, n_levels), np.int64)
        codes = code_buffer(bits)
        _search(floats, bounds, bits, codes, out, sums, counts)
    means = np.empty(n_levels, floats.dtype)
    _average(sums, counts, means)
    return torch.from_numpy(out), torch.from_numpy(means)


@kernel
def _average(sums: Array, counts: Array, means: Array) -> None:
    """Write the means of levels from rows of sums and counts; 0 for an empty level."""
    for level in range(means.size):
        total, count = 0.0, 0
        for row in range(sums.shape[0]):
            total += sums[row, level]
            count += counts[row, level]
        means[level] = total / max(count, 1)


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """See `reference.fractional.fractional_dense`."""
    dtype = torch.promote_types(means.dtype, torch.float32)  # numpy has no bfloat16
    dense = torch.empty(count, dtype=dtype)
    _write(packed, means.to(dtype), bits, dense, add=False)
    return dense.to(means.dtype)


def put_fractional(packed: Tensor, means: Tensor, count: int, bits: int, out: Tensor) -> None:
    """See `reference.fractional.put_fractional`."""
    if means.dtype in FLOATS and out.dtype in FLOATS and out.is_contiguous():
        _write(packed, means, bits, out, add=False)
    else:
        out.copy_(fractional_dense(packed, means, count, bits))


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """See `reference.fractional.add_fractional`."""
    if means.dtype in FLOATS and total.dtype in FLOATS and total.is_contiguous():
        _write(packed, means, bits, total, add=True)
    else:
        total.add_(fractional_dense(packed, means, count, bits))


def _write(packed: Tensor, means: Tensor, bits: int, total: Tensor, *, add: bool) -> None:
    data, out = packed.contiguous().numpy(), total.numpy()
    table = torch.cat([means, -means]).numpy()  # the highest bit of a code is its sign

    def run(start: int, stop: int) -> None:
        codes = code_buffer(bits)
        _look_up(data, table, bits, codes, out, start, stop, add)

    in_chunks(total.numel(), run)


def _magnitudes(keys: Array, mask: Any, floats: Any) -> tuple[Array, Array, float, float]:  # noqa: ANN401
    """Return the minimum and maximum magnitude of each full SPAN, and the range of all magnitudes.

    Args:
        keys: (K,) integers, bits of floats.
        mask: All bits but the sign, of the keys' type.
        floats: numpy's type of the floats.

    Returns:
        Minimums and maximums (K // SPAN,), as integers; the largest magnitude; the smallest that is not 0. The last two
        are 0 where all are. NaN counts as the largest.
    """
    lows, highs = np.empty((2, keys.size // SPAN), keys.dtype)
    ends = np.empty((-(-keys.size // CHUNK), 2), keys.dtype)
    in_chunks(keys.size, lambda start, stop: _spans(keys, mask, lows, highs, ends, start, stop))
    if len(ends) > 1:
        ends[0] = ends[:, 0].max(), ends[:, 1].min()
    if ends[0, 0] == 0:
        return lows, highs, 0.0, 0.0
    ends[0, 1] += 1
    largest, smallest = ends[0].view(floats).tolist()
    return lows, highs, largest, smallest


@kernel
def _spans(keys: Array, mask: Any, lows: Array, highs: Array, ends: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Write the range of each full SPAN and of each chunk, as integers.

    Args:
        keys: (K,) integers, bits of floats.
        mask: All bits but the sign.
        lows: (K // SPAN,), the minimum magnitude of each SPAN, overwritten.
        highs: (K // SPAN,), the maximum magnitudes, overwritten.
        ends: (chunks, 2), overwritten: the largest magnitude of each chunk, and the smallest above 0, less 1.
        start: First element, a multiple of CHUNK.
        stop: Index behind the last element.
    """
    for chunk in range(start, stop, CHUNK):
        part = keys[chunk : min(chunk + CHUNK, stop)]
        n, start_span = part.size // SPAN, chunk // SPAN
        low, high = lows[start_span : start_span + n], highs[start_span : start_span + n]
        smallest = magnitude_spans(part.ctypes.data, n, mask, low.ctypes.data, high.ctypes.data) & mask
        kind = type(mask)  # as in `block_norms.keys_in`
        largest = kind(0)
        for i in range(n):
            largest = max(largest, high[i])
        rest = part[n * SPAN :]
        for i in range(rest.size):
            key = rest[i] & mask
            largest = max(largest, key)
            smallest = min(smallest, (key - 1) & mask)  # 0 becomes the largest integer
        ends[chunk // CHUNK, 0] = largest
        ends[chunk // CHUNK, 1] = smallest


@kernel
def _level_chunks(
    values: Array, bounds: Array, lows: Array, highs: Array, minus: Any, bits: int, packed: Array, sums: Array,  # noqa: ANN401
    counts: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Write codes, and each chunk's sums and counts, by comparing with up to seven bounds.

    Args:
        values: (K,) floats.
        bounds: (ROWS,) descending, -1 behind the last one.
        lows: Minimum magnitude of each SPAN.
        highs: Maximum magnitude of each SPAN.
        minus: uint32, the bit of a code for values below zero.
        bits: Bits of a code, 1 .. 4.
        packed: uint8, overwritten.
        sums: (chunks, ROWS) float64, added to.
        counts: (chunks, ROWS) int64, added to.
        start: First element, a multiple of CHUNK.
        stop: Index behind the last element.
    """
    codes, lane_sums = np.zeros(TILE, np.uint8), np.empty(ROWS * LANES)
    direct = bits == 1 or bits == 2 or bits == 4
    zero = values.dtype.type(0)  # of the values' type: otherwise the comparison is one of float64
    for chunk in range(start, stop, CHUNK):
        end, number = min(chunk + CHUNK, stop), chunk // CHUNK
        lane_sums[:] = 0.0
        at = chunk
        while end - at >= SPAN:
            n = (end - at) // SPAN if direct else min((end - at) // SPAN, TILE // SPAN)
            until = at + n * SPAN
            level_spans(
                zero, values[at:].ctypes.data, n, bounds.ctypes.data, lows[at // SPAN :].ctypes.data,
                highs[at // SPAN :].ctypes.data, minus, bits if direct else 8, lane_sums.ctypes.data,
                counts[number].ctypes.data, packed[at * bits // 8 :].ctypes.data if direct else codes.ctypes.data,
            )  # fmt: skip
            if not direct:
                pack_tile(codes[: n * SPAN], bits, packed[at * bits // 8 : until * bits // 8])
            at = until
        for level in range(ROWS):
            for lane in range(LANES):
                sums[number, level] += lane_sums[level * LANES + lane]
        if at < end:
            codes[:SPAN] = 0
            for i in range(end - at):
                magnitude = abs(values[at + i])
                level = 0
                for j in range(_FEW - 1):
                    level += magnitude <= bounds[j]
                sums[number, level] += magnitude
                counts[number, level] += 1
                codes[i] = uint8(uint32(level) | (minus if values[at + i] < zero else uint32(0)))
            pack_tile(codes[:SPAN], bits, packed[at * bits // 8 : (end * bits + 7) // 8])


@kernel
def _search(values: Array, bounds: Array, bits: int, codes: Array, packed: Array, sums: Array, counts: Array) -> None:
    """Write codes, sums and counts by binary search, one step for a full tile at a time.

    Args:
        values: (K,) floats.
        bounds: One fewer than a power of two, descending.
        bits: Bits of a code.
        codes: A code_buffer.
        packed: uint8, overwritten.
        sums: (lanes, levels) float64, added to.
        counts: (lanes, levels) int64, added to.
    """
    levels = np.empty(TILE, np.uint32)
    minus, zero = uint32(1 << (bits - 1)), values.dtype.type(0)
    for start in range(0, values.size, TILE):
        tile = values[start : start + TILE]
        levels[:] = 0
        step = uint32((bounds.size + 1) // 2)
        while step > uint32(0):
            for i in range(tile.size):
                further = uint32(levels[i] + step)
                levels[i] = further if bounds[further - uint32(1)] >= abs(tile[i]) else levels[i]
            step = uint32(step >> uint32(1))
        for i in range(tile.size):
            codes[i] = uint16(levels[i] | (minus if tile[i] < zero else uint32(0)))
        for i in range(tile.size):
            lane = uint32(i) & uint32(_LANES - 1)
            sums[lane, levels[i]] += float64(abs(tile[i]))
            counts[lane, levels[i]] += 1
        codes[tile.size :] = 0
        pack_tile(codes, bits, packed[start * bits // 8 : ((start + tile.size) * bits + 7) // 8])


@kernel
def _look_up(
    packed: Array,
    table: Array,
    bits: int,
    codes: Array,
    total: Array,
    start: int,
    stop: int,
    add: bool,
) -> None:
    """Write, or add, the table's value of each code of the elements start .. stop - 1."""
    for tile in range(start, stop, TILE):
        end = min(tile + TILE, stop)
        unpack_tile(packed[tile * bits // 8 : (end * bits + 7) // 8], bits, codes)
        out = total[tile:end]
        if add:
            for i in range(out.size):
                out[i] += table[codes[i]]
        else:
            for i in range(out.size):
                out[i] = table[codes[i]]


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """See `reference.fractional.pack_codes`."""
    packed = torch.empty((bits * len(codes) + 7) // 8, dtype=torch.uint8)
    buffer = code_buffer(bits)
    _pack(codes.contiguous().numpy(), bits, buffer, packed.numpy())
    return packed


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """See `reference.fractional.unpack_codes`."""
    codes = torch.empty(k, dtype=torch.int32)
    buffer = code_buffer(bits)
    _unpack(packed.contiguous().numpy(), bits, buffer, codes.numpy())
    return codes


@kernel
def _pack(codes: Array, bits: int, buffer: Array, packed: Array) -> None:
    """Pack int32 codes, tile by tile."""
    for tile in range(0, codes.size, TILE):
        part = codes[tile : tile + TILE]
        for i in range(part.size):
            buffer[i] = part[i]
        buffer[part.size :] = 0
        pack_tile(buffer, bits, packed[tile * bits // 8 : ((tile + part.size) * bits + 7) // 8])


@kernel
def _unpack(packed: Array, bits: int, buffer: Array, codes: Array) -> None:
    """Unpack to int32 codes, tile by tile."""
    for tile in range(0, codes.size, TILE):
        part = codes[tile : tile + TILE]
        unpack_tile(packed[tile * bits // 8 : ((tile + part.size) * bits + 7) // 8], bits, buffer)
        for i in range(part.size):
            part[i] = buffer[i]
