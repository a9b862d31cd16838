"""Stochastic rounding in blocks of few elements, compiled: what depends on a block is repeated over its elements.

For `cpu/stochastic_rounding.py`, with the same bits as its loops over blocks; those cost as much for a short block as
for 32 elements. Reference: `reference/stochastic_rounding.py`. All loops run over a tile of codes.
"""

from typing import Any

import numpy as np
from numba import int32, uint32
from numpy.typing import NDArray

from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.code_tiles import TILE, pack_tile, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS

Array = NDArray[Any]

_ROUND_BITS = np.uint32(32 - FRACTION_BITS)
_FRACTION_BITS = np.uint32(FRACTION_BITS)


@kernel
def quantize_short(
    values: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, minus: Any,  # noqa: ANN401
    offset: int, low_key: Any, high_key: Any, codes: Array, packed: Array, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the packed codes of elements start .. stop - 1. Arguments as for `quantize_blocks`."""
    of_block, repeated = np.empty((3, TILE), values.dtype), np.empty((3, TILE), values.dtype)
    factors, raised, steps = repeated[0], repeated[1], repeated[2]
    grid, zero = np.empty(TILE, np.int32), numbers[1]
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        until = block_at(last - 1, size, edges) + 1
        _scales(lows[block:until], highs[block:until], numbers, of_block)
        for row in range(3):
            _repeat(of_block[row], block, size, edges, values.size, tile, last, repeated[row])
        part = values[tile:last]
        for i in range(part.size):
            value = part[i]
            if minus and value < zero:
                value = -value
            found = (value * factors[i] + raised[i]) * steps[i]
            found = found if found > zero else zero  # also for NaN
            grid[i] = int32(found if found < numbers[0] else numbers[0])
        for i in range(part.size):
            x = uint32(uint32(offset + tile + i) ^ low_key)
            x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(0x7FEB352D))
            x = uint32(x ^ uint32(x >> uint32(15)))
            x = uint32(uint32(x + high_key) * uint32(0x846CA68B))
            x = uint32(x ^ uint32(x >> uint32(16)))
            level = uint32(uint32(uint32(x >> _ROUND_BITS) + uint32(grid[i])) >> _FRACTION_BITS)
            grid[i] = int32(level)
        for i in range(part.size):
            negative = (part[i] < zero) & (grid[i] > int32(0))
            codes[i] = uint32(grid[i]) | (minus if negative else uint32(0))
        codes[part.size :] = 0
        pack_tile(codes, bits, packed[tile * bits // 8 : (last * bits + 7) // 8])
        block = until if edge_of(until, size, edges, values.size) == last else until - 1


@kernel
def dequantize_short(
    packed: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, max_code: Any,  # noqa: ANN401
    minus: Any, codes: Array, total: Array, start: int, stop: int, sign: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the values of codes start .. stop - 1, or add them. Arguments as for `_dequantize`."""
    of_block, repeated = np.empty((3, TILE), lows.dtype), np.empty((4, TILE), lows.dtype)
    bottoms, steps, unfactors, tops = repeated[0], repeated[1], repeated[2], repeated[3]
    made, zero = np.empty(TILE, lows.dtype), numbers[1]
    below = int32(minus - int32(1)) if minus else int32(-1)
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        unpack_tile(packed[tile * bits // 8 : (last * bits + 7) // 8], bits, codes)
        until = block_at(last - 1, size, edges) + 1
        _distances(lows[block:until], highs[block:until], numbers, of_block)
        for row in range(3):
            _repeat(of_block[row], block, size, edges, total.size, tile, last, repeated[row])
        _repeat(highs[block:until], block, size, edges, total.size, tile, last, tops)
        part = total[tile:last]
        for i in range(part.size):
            code = int32(int32(codes[i]) & below)
            found = (lows.dtype.type(code) * steps[i] + bottoms[i]) * unfactors[i]
            found = (found if (found < tops[i]) & (code != max_code) else tops[i]) + zero  # -0.0 becomes 0.0
            made[i] = -found if minus and int32(codes[i]) >= minus else found
        if sign == zero:
            for i in range(part.size):
                part[i] = made[i]
        else:
            for i in range(part.size):
                part[i] += sign * made[i]
        block = until if edge_of(until, size, edges, total.size) == last else until - 1


@kernel
def _scales(lows: Array, highs: Array, numbers: Array, out: Array) -> None:
    """Write each block's factor, 0 - low end, and codes per unit of the values, as for quantizing."""
    for i in range(lows.size):
        factor = _factor_of(lows[i], highs[i], numbers)
        bottom = lows[i] * factor
        span = highs[i] * factor - bottom
        step = numbers[0] / span
        out[0, i], out[1, i] = factor, numbers[1] - bottom
        out[2, i] = step * numbers[6] if span * step < numbers[0] else step


@kernel
def _distances(lows: Array, highs: Array, numbers: Array, out: Array) -> None:
    """Write each block's low end, the distance of its codes, and what undoes its factor."""
    for i in range(lows.size):
        factor = _factor_of(lows[i], highs[i], numbers)
        bottom = lows[i] * factor
        out[0, i], out[1, i], out[2, i] = bottom, (highs[i] * factor - bottom) / numbers[0], numbers[2] / factor


@kernel
def _factor_of(low: Any, high: Any, numbers: Array) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return `reference.stochastic_rounding.range_factors` of one block, without a branch."""
    span = high - low
    small = numbers[5] if (span > numbers[1]) & (span < numbers[4]) else numbers[2]
    return small if span - span == numbers[1] else numbers[3]  # inf - inf is NaN


@kernel
def _repeat(
    of_block: Array, block: int, size: int, edges: Array, count: int, tile: int, last: int, out: Array
) -> None:  # fmt: skip
    """Write a number of each block, from `block` on, for each of its elements in a tile."""
    if size == 1:
        for i in range(last - tile):
            out[i] = of_block[i]
        return
    at, number = tile, 0
    while at < last:
        end = min(edge_of(block + number + 1, size, edges, count), last)
        for i in range(at - tile, end - tile):
            out[i] = of_block[number]
        at, number = end, number + 1
