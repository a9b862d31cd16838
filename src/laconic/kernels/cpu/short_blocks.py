"""Blocks of few elements, compiled: what depends on a block is repeated over its elements, and loops run over these.

For the kernels of stochastic rounding and of scaled signs, with the same bits as their loops over blocks; those cost as
much for a short block as for 32 elements. Tiles are what stays in the first cache. Blocks of one or two elements mostly
have no others than the ends of their ranges, for which nothing is divided or sampled.
"""

from typing import Any

import numpy as np
from numba import int32, uint32
from numpy.typing import NDArray

from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.code_tiles import TILE, pack_tile, unpack_tile
from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.llvm.packing import GROUP
from laconic.kernels.cpu.llvm.stochastic_rounding import SEGMENT, draw_groups
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS

Array = NDArray[Any]


@kernel
def quantize_short(
    values: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, minus: Any,  # noqa: ANN401
    offset: int, low_key: Any, high_key: Any, codes: Array, packed: Array, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the packed codes of elements start .. stop - 1.

    Arguments as for `stochastic_rounding.quantize_blocks`; `lows` may be empty where all are 0.
    """
    of_block, repeated = np.zeros((4, TILE), values.dtype), np.zeros((3, TILE), values.dtype)
    direct = bits == 1 or bits == 2 or bits == 4 or bits == 8
    max_code = int(numbers[0]) >> FRACTION_BITS
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        until = block_at(last - 1, size, edges) + 1
        n, high = last - tile, highs[block:until]
        low = lows[block:until] if lows.size else of_block[3, : high.size]
        width, to = 8 * codes.itemsize, codes.ctypes.data
        is_sampled = not ((size == 1 or (size == 2 and lows.size > 0)) and _ends_as_codes(
            values[tile:last], _each(low, block, size, edges, values.size, tile, last, repeated[0]),
            _each(high, block, size, edges, values.size, tile, last, repeated[1]), max_code, minus, codes,
        ))  # fmt: skip
        if is_sampled:
            if direct and n == TILE:
                width, to = bits, packed[tile * bits // 8 :].ctypes.data
            odd, elements = _scales(low, high, numbers, of_block), values[tile:].ctypes.data
            if odd or n < TILE:
                repeat(of_block[0], block, size, edges, values.size, tile, last, repeated[0])
                _multiply(repeated[0, :n], values[tile:last])
                elements = repeated[0].ctypes.data
            raised, steps = of_block[1].ctypes.data, of_block[2].ctypes.data
            if size != 1:
                if lows.size:  # zeros otherwise
                    repeat(of_block[1], block, size, edges, values.size, tile, last, repeated[1])
                repeat(of_block[2], block, size, edges, values.size, tile, last, repeated[2])
                raised, steps = repeated[1].ctypes.data, repeated[2].ctypes.data
            _draw_tile(elements, raised, steps, n, offset + tile, low_key, high_key, numbers, minus, width, to)
        if not (is_sampled and direct and n == TILE):
            codes[n:] = 0
            pack_tile(codes, bits, packed[tile * bits // 8 : (last * bits + 7) // 8])
        block = until if edge_of(until, size, edges, values.size) == last else until - 1


@kernel
def _ends_as_codes(values: Array, lows: Array, highs: Array, max_code: int, minus: Any, codes: Array) -> bool:  # noqa: ANN401
    """Write the codes of values that are ends of their ranges; return False where one is none.

    The low end's code is 0 and the high end's the last one, whatever is sampled. Arguments are those of a tile.
    """
    zero, top, none, wrong = values.dtype.type(0), uint32(max_code), uint32(0), uint32(0)
    for i in range(values.size):
        low, high = lows[i], highs[i]
        size, span = abs(values[i]) if minus != none else values[i], high - low
        wrong |= none if ((size == low) | (size == high)) & (span - span == zero) else uint32(1)
    for i in range(values.size):
        size = abs(values[i]) if minus != none else values[i]
        code = top if (size == highs[i]) & (lows[i] < highs[i]) else none
        codes[i] = code | (minus if (values[i] < zero) & (code != none) else none)
    return bool(wrong == none)


@kernel
def _draw_tile(
    elements: int, raised: int, steps: int, n: int, coordinate: int, low_key: Any, high_key: Any, numbers: Array,  # noqa: ANN401
    minus: Any, width: int, to: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the codes of a tile, in full groups. Addresses are those of arrays that are as long as a tile."""
    at, end, size = 0, (n + GROUP - 1) // GROUP * GROUP, numbers.itemsize
    while at < end:
        place = coordinate + at
        n_groups = min((end - at) // GROUP, max(SEGMENT - place % SEGMENT, GROUP) // GROUP)
        draw_groups(
            elements + at * size, n_groups, uint32(place), low_key, high_key, raised + at * size, steps + at * size,
            numbers[0], minus, width, to + at * width // 8,
        )  # fmt: skip
        at += n_groups * GROUP


@kernel
def dequantize_short(
    packed: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, max_code: Any,  # noqa: ANN401
    minus: Any, codes: Array, total: Array, start: int, stop: int, sign: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the values of codes start .. stop - 1, or add them.

    Arguments as for `stochastic_rounding.put_points`; `lows` may be empty where all are 0.
    """
    of_block, repeated = np.zeros((4, TILE), highs.dtype), np.zeros((4, TILE), highs.dtype)
    made, below = np.empty(TILE, highs.dtype), int32(minus - int32(1)) if minus else int32(-1)
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        unpack_tile(packed[tile * bits // 8 : (last * bits + 7) // 8], bits, codes)
        until = block_at(last - 1, size, edges) + 1
        part, high = codes[: last - tile], highs[block:until]
        low = lows[block:until] if lows.size else of_block[3, : high.size]
        tops = _each(high, block, size, edges, total.size, tile, last, repeated[3])
        if not ((size == 1 or (size == 2 and lows.size > 0)) and _codes_as_ends(
            part, _each(low, block, size, edges, total.size, tile, last, repeated[0]), tops, max_code, below, made
        )):  # fmt: skip
            odd = _distances(low, high, numbers, of_block)
            bottoms = repeated[0]  # zeros, unless there are low ends
            if lows.size:
                bottoms = _each(of_block[0], block, size, edges, total.size, tile, last, bottoms)
            steps = _each(of_block[1], block, size, edges, total.size, tile, last, repeated[1])
            if odd:
                repeat(of_block[2], block, size, edges, total.size, tile, last, repeated[2])
            _grid_points(part, bottoms, steps, repeated[2], tops, odd > 0, max_code, below, made)
        if minus:
            _negate(part, minus, made)
        _put(made, total[tile:last], sign)
        block = until if edge_of(until, size, edges, total.size) == last else until - 1


@kernel
def _codes_as_ends(codes: Array, lows: Array, highs: Array, max_code: Any, below: Any, made: Array) -> bool:  # noqa: ANN401
    """Write the values of codes that are the first or the last; return False where one is neither."""
    zero, wrong, inner = made.dtype.type(0), uint32(0), int32(0)
    for i in range(codes.size):
        code, low, high = int32(int32(codes[i]) & below), lows[i], highs[i]
        span = high - low
        wrong |= uint32(0) if (span >= zero) & (span - span == zero) else uint32(1)
        inner |= code if code != max_code else int32(0)
        made[i] = (high if code == max_code else low) + zero  # -0.0 becomes 0.0
    return bool((wrong == uint32(0)) & (inner == int32(0)))


@kernel
def _grid_points(
    codes: Array, bottoms: Array, steps: Array, unfactors: Array, tops: Array, odd: bool, max_code: Any, below: Any,  # noqa: ANN401
    made: Array,
) -> None:  # fmt: skip
    """Write the grid points of codes, at most their block's last one, without their sign."""
    number, zero = made.dtype.type, made.dtype.type(0)
    if odd:
        for i in range(codes.size):
            code, top = int32(int32(codes[i]) & below), tops[i]
            found = (number(code) * steps[i] + bottoms[i]) * unfactors[i]
            made[i] = (found if (found < top) & (code != max_code) else top) + zero  # -0.0 becomes 0.0
    else:
        for i in range(codes.size):
            code, top = int32(int32(codes[i]) & below), tops[i]
            found = number(code) * steps[i] + bottoms[i]
            made[i] = (found if (found < top) & (code != max_code) else top) + zero


@kernel
def _negate(codes: Array, minus: Any, made: Array) -> None:  # noqa: ANN401
    for i in range(codes.size):
        made[i] = -made[i] if int32(codes[i]) >= minus else made[i]


@kernel
def _put(made: Array, out: Array, sign: Any) -> None:  # noqa: ANN401
    """Write values, or add them. sign: 1 to add, -1 to subtract, 0 to overwrite."""
    if sign == made.dtype.type(0):
        for i in range(out.size):
            out[i] = made[i]
    else:
        for i in range(out.size):
            out[i] += sign * made[i]


@kernel
def _multiply(factors: Array, values: Array) -> None:
    for i in range(factors.size):
        factors[i] *= values[i]


@kernel
def _scales(lows: Array, highs: Array, numbers: Array, out: Array) -> int:
    """Write each block's factor, 0 - low end, and codes per unit of the values; return how many factors are not 1."""
    top, zero, one, half, more = numbers[0], numbers[1], numbers[2], numbers[3], numbers[6]
    large, tiny = numbers[4], numbers[5]  # read once: a loop that reads them again is not vectorized
    factors, raised, steps, n_odd = out[0], out[1], out[2], 0
    for i in range(highs.size):
        factor = _factor_of(highs[i] - lows[i], zero, one, half, large, tiny)
        bottom = lows[i] * factor
        span = highs[i] * factor - bottom
        step = top / span
        factors[i], raised[i] = factor, zero - bottom
        steps[i] = step * more if span * step < top else step
        n_odd += factor != one
    return n_odd


@kernel
def _distances(lows: Array, highs: Array, numbers: Array, out: Array) -> int:
    """Write each block's low end, the distance of its codes, and what undoes its factor; return as `_scales` does."""
    top, zero, one, half, two = numbers[0], numbers[1], numbers[2], numbers[3], numbers[7]
    large, tiny = numbers[4], numbers[5]
    bottoms, steps, unfactors, n_odd = out[0], out[1], out[2], 0
    for i in range(highs.size):
        factor = _factor_of(highs[i] - lows[i], zero, one, half, large, tiny)
        bottom = lows[i] * factor
        bottoms[i], steps[i] = bottom, (highs[i] * factor - bottom) / top
        unfactors[i] = one if factor == one else two if factor == half else large
        n_odd += factor != one
    return n_odd


@inlined
def _factor_of(span: Any, zero: Any, one: Any, half: Any, large: Any, tiny: Any) -> Any:  # noqa: ANN401
    """Return `reference.stochastic_rounding.range_factors` of one block, without a branch."""
    small = tiny if (span > zero) & (span < large) else one
    return small if span - span == zero else half  # inf - inf is NaN


@kernel
def _each(
    of_block: Array, block: int, size: int, edges: Array, count: int, tile: int, last: int, out: Array
) -> Any:  # noqa: ANN401  # fmt: skip
    """Return a number for each element of a tile: `out`, as `repeat` writes it, or the numbers of blocks of one."""
    if size == 1:
        return of_block
    repeat(of_block, block, size, edges, count, tile, last, out)
    return out


@kernel
def repeat(
    of_block: Array, block: int, size: int, edges: Array, count: int, tile: int, last: int, out: Array
) -> None:  # fmt: skip
    """Write a number of each block, from `block` on, for each of its elements in a tile."""
    at, number = tile, 0
    if size > 0:
        at, number = min((block + 1) * size, last), 1
        for i in range(at - tile):
            out[i] = of_block[0]
        n = (last - at) // size
        full, elements = of_block[1 : 1 + n], out[at - tile : at - tile + n * size]
        if size == 2:
            _repeat_full(full, 2, elements)
        elif size == 3:
            _repeat_full(full, 3, elements)
        elif size == 4:
            _repeat_full(full, 4, elements)
        elif size == 8:
            _repeat_full(full, 8, elements)
        else:
            _repeat_full(full, size, elements)
        at, number = at + n * size, 1 + n
    while at < last:
        end = min(edge_of(block + number + 1, size, edges, count), last)
        for i in range(at - tile, end - tile):
            out[i] = of_block[number]
        at, number = end, number + 1


@kernel
def _repeat_full(of_block: Array, size: int, out: Array) -> None:
    """Write each number `size` times. Sizes that are known when this is compiled become shuffles, here and below."""
    for i in range(of_block.size):
        number = of_block[i]
        for j in range(size):
            out[i * size + j] = number
