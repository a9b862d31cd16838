"""Stochastic rounding, compiled: the same bits except for `norms`, by the same operations in the same order.

Reference: `reference/stochastic_rounding.py`. Codes are made 32 at a time (`llvm/stochastic_rounding.py`). Where a
block begins or ends among these, its elements are first copied next to each other. Codes are turned back into values
tile by tile: the codes of a tile, then what they stand for. Loops run over slices of one type from 0 on, which numba
turns into vector instructions.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import int32, uint32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.block_norms import FLOATS, bits_of
from laconic.kernels.cpu.block_norms import absolute_maxima as absolute_maxima
from laconic.kernels.cpu.block_norms import norms as norms
from laconic.kernels.cpu.block_norms import ranges as ranges
from laconic.kernels.cpu.code_tiles import TILE, code_buffer, pack_tile, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to, uncounted
from laconic.kernels.cpu.grid_points import add, add_signed, factor_of, grid_of, put, put_signed
from laconic.kernels.cpu.llvm.packing import GROUP
from laconic.kernels.cpu.llvm.stochastic_rounding import SEGMENT, draw_groups
from laconic.kernels.cpu.past_caches import store_past_caches, tile_buffer
from laconic.kernels.cpu.short_blocks import dequantize_short, quantize_short
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference.hashing import key_words
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS, TINY_BITS, level_bits

Array = NDArray[Any]


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """See `reference.stochastic_rounding.quantize`."""
    max_code = (1 << bits) - 1
    return _quantized(values, _array(lows, values.dtype), highs, lengths, bits, max_code, 0, offset, key)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, offset: int, key: int
) -> Tensor:
    """See `reference.stochastic_rounding.quantize_levels`."""
    bits = level_bits(steps)
    lows = np.zeros(_n_lows(lengths), FLOATS[values.dtype])
    return _quantized(values, lows, scales, lengths, bits, steps, 1 << (bits - 1), offset, key)


def _quantized(
    values: Tensor, lows: Array, highs: Tensor, lengths: Sequence[int], bits: int, max_code: int, minus: int,
    offset: int,
    key: int,
) -> Tensor:  # fmt: skip
    """Return packed codes of values.

    Args:
        values: (d,) float32 or float64.
        lows: (blocks,), the low end of each block.
        highs: (blocks,), the high ends.
        lengths: Elements of each block.
        bits: Bits of a code.
        max_code: The last code, without the sign bit.
        minus: The bit of a code for values below zero; 0 for codes without a sign.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
    """
    floats = bits_of(values)[0].view(FLOATS[values.dtype])
    packed = new_vector((bits * floats.size + 7) // 8, torch.uint8)
    out = packed.numpy()
    highs_, blocks = _array(highs, values.dtype), BlockLengths.of(lengths)
    size, edges = blocks.size, blocks.sparse_edges
    numbers = constants(values.dtype, max_code << FRACTION_BITS)
    low_key, high_key = map(np.uint32, key_words(key))
    quantize_ = quantize_short if blocks.are_short else quantize_blocks

    def run(start: int, stop: int) -> None:
        codes = code_buffer(bits)
        quantize_(
            floats, lows, highs_, size, edges, numbers, bits, np.uint32(minus), offset, low_key, high_key, codes,
            out, start, stop,
        )  # fmt: skip

    in_chunks(floats.size, run)
    return packed


def _n_lows(lengths: Sequence[int]) -> int:
    """Return how many zeros stand for the low ends of levels: loops over short blocks need none."""
    return 0 if BlockLengths.of(lengths).are_short else len(lengths)


def _array(ends: Tensor, dtype: torch.dtype) -> Array:
    """Return the ends of blocks as an array of the given type."""
    made: Array = (ends if ends.dtype == dtype else ends.to(dtype)).contiguous().numpy()
    return made


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int) -> Tensor:
    """See `reference.stochastic_rounding.dequantize`."""
    return _dense(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0)


def put_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """See `reference.stochastic_rounding.put_dequantized`."""
    _put(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0, out)


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, total: Tensor,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """See `reference.stochastic_rounding.add_dequantized`."""
    _add(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0, total, subtract=subtract)


def levels_dense(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int) -> Tensor:
    """See `reference.stochastic_rounding.levels_dense`."""
    bits = level_bits(steps)
    return _dense(packed, scales.new_zeros(_n_lows(lengths)), scales, lengths, bits, steps, 1 << (bits - 1))


def put_levels(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, out: Tensor) -> None:
    """See `reference.stochastic_rounding.put_levels`."""
    bits = level_bits(steps)
    _put(packed, scales.new_zeros(_n_lows(lengths)), scales, lengths, bits, steps, 1 << (bits - 1), out)


def add_levels(
    packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, total: Tensor, *, subtract: bool = False
) -> None:
    """See `reference.stochastic_rounding.add_levels`."""
    bits = level_bits(steps)
    minus = 1 << (bits - 1)
    _add(packed, scales.new_zeros(_n_lows(lengths)), scales, lengths, bits, steps, minus, total, subtract=subtract)


def _dense(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, max_code: int, minus: int
) -> Tensor:
    dtype = torch.promote_types(lows.dtype, torch.float32)  # numpy has no bfloat16
    dense = torch.empty(BlockLengths.of(lengths).total, dtype=dtype)
    _write(packed, lows.to(dtype), highs.to(dtype), lengths, bits, max_code, minus, dense, times=0)
    return dense.to(lows.dtype)


def _put(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, max_code: int, minus: int,
    out: Tensor,
) -> None:  # fmt: skip
    if out.dtype in FLOATS and out.dtype == lows.dtype and out.is_contiguous():
        _write(packed, lows, highs, lengths, bits, max_code, minus, out, times=0)
    else:
        out.copy_(_dense(packed, lows, highs, lengths, bits, max_code, minus))


def _add(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, max_code: int, minus: int,
    total: Tensor, *, subtract: bool,
) -> None:  # fmt: skip
    times = -1 if subtract else 1
    if lows.dtype in FLOATS and total.dtype in FLOATS and total.is_contiguous():
        _write(packed, lows, highs, lengths, bits, max_code, minus, total, times=times)
    else:
        total.add_(_dense(packed, lows, highs, lengths, bits, max_code, minus), alpha=times)


def _write(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, max_code: int, minus: int,
    total: Tensor, *, times: int,
) -> None:  # fmt: skip
    data, out, blocks = packed.contiguous().numpy(), total.numpy(), BlockLengths.of(lengths)
    lows_, highs_, numbers = lows.contiguous().numpy(), highs.contiguous().numpy(), constants(lows.dtype, max_code)
    settings = blocks.size, blocks.sparse_edges, numbers, bits, int32(max_code), int32(minus)
    sign, size = lows_.dtype.type(times), 0 if times else TILE
    are_short = blocks.are_short

    def run(start: int, stop: int) -> None:
        if are_short:
            dequantize_short(data, lows_, highs_, *settings, code_buffer(bits), out, start, stop, sign)
        else:
            buffer = tile_buffer(total, size)
            put_points(data, lows_, highs_, *settings, code_buffer(bits), buffer, out, start, stop, sign)

    in_chunks(total.numel(), run)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """See `reference.stochastic_rounding.levels_allowed`."""
    bits = level_bits(steps)
    codes = code_buffer(bits)
    return bool(_allowed(packed.contiguous().numpy(), count, bits, uint32(steps), codes))


@functools.cache
def constants(dtype: torch.dtype, max_code: int) -> Array:
    """Return the numbers that kernels need, in the values' own type, so that no operation becomes one of float64."""
    floats: Any = FLOATS[dtype]
    tiny = 2.0 ** TINY_BITS[dtype]
    return np.array([max_code, 0.0, 1.0, 0.5, 1 / tiny, tiny, 1 + np.finfo(floats).eps, 2.0], floats)


@kernel
def quantize_blocks(
    values: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, minus: Any,  # noqa: ANN401
    offset: int, low_key: Any, high_key: Any, codes: Array, packed: Array, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the packed codes of elements start .. stop - 1.

    Args:
        values: (d,) floats.
        lows: (blocks,), the low end of each block.
        highs: (blocks,), the high ends.
        size: The size of all blocks but the last; 0 where `edges` has them.
        edges: (blocks + 1,) int64, where blocks begin and end; empty where there is a size.
        numbers: From `constants`.
        bits: Bits of a code.
        minus: uint32, the bit of a code for values below zero; 0 for codes without a sign.
        offset: Number of the vector's first coordinate.
        low_key: uint32, the low half of the mixed key.
        high_key: uint32, the high half of the mixed key.
        codes: A code_buffer.
        packed: uint8, overwritten.
        start: First element, a multiple of CHUNK.
        stop: Index behind the last element.
    """
    buffer, sampled = np.zeros(GROUP, values.dtype), np.empty(GROUP, codes.dtype)
    direct = bits == 1 or bits == 2 or bits == 4 or bits == 8
    wide, max_groups = 8 * codes.itemsize, codes.size // GROUP
    top = numbers[0]
    block = block_at(start, size, edges)
    end = edge_of(block + 1, size, edges, values.size)
    at = start
    while at < stop:
        if end <= at:
            block += 1
            end = edge_of(block + 1, size, edges, values.size)
        low, high = lows[block], highs[block]
        factor = factor_of(low, high, numbers)
        bottom = low * factor
        raised = numbers[1] - bottom
        span = high * factor - bottom
        step = top / span
        if span * step < top:
            step = step * numbers[6]
        until = min(stop, end)
        n, within = (until - at) // GROUP, at % GROUP
        n = min(n, max(SEGMENT - (offset + at) % SEGMENT, GROUP) // GROUP)
        full = n > 0 and within == 0 and factor == numbers[2]
        if full and direct:
            elements, to, width = values[at:].ctypes.data, packed[at * bits // 8 :].ctypes.data, bits
        elif full:
            n = min(n, max_groups)
            elements, to, width = values[at:].ctypes.data, codes.ctypes.data, wide
        else:
            n = 1
            elements, to, width = buffer.ctypes.data, sampled.ctypes.data, wide
            until = min(until, at - within + GROUP)
            for i in range(until - at):
                buffer[within + i] = values[at + i] * factor
        draw_groups(elements, n, uint32(offset + at - within), low_key, high_key, raised, step, top, minus, width, to)
        if full:
            until = at + n * GROUP
            if not direct:
                pack_tile(codes[: n * GROUP], bits, packed[at * bits // 8 : until * bits // 8])
        else:
            for i in range(within, within + until - at):
                codes[i] = sampled[i]
            if until == stop or until % GROUP == 0:
                codes[within + until - at : GROUP] = 0
                pack_tile(codes[:GROUP], bits, packed[(at - within) * bits // 8 : (until * bits + 7) // 8])
        at = until


@kernel
def put_points(
    packed: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, max_code: Any,  # noqa: ANN401
    minus: Any, codes: Array, buffer: Array, total: Array, start: int, stop: int, sign: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the values of the codes of elements start .. stop - 1, or add them.

    Args:
        packed: The codes.
        buffer: A tile_buffer of the total; (0,) to add.
        total: (d,), overwritten.
        sign: 1 to add, -1 to subtract, 0 to overwrite; of the ends' type. The others are as for `quantize_blocks`.
    """
    packed, lows, highs, edges = uncounted(packed), uncounted(lows), uncounted(highs), uncounted(edges)
    numbers, codes, buffer, total = uncounted(numbers), uncounted(codes), uncounted(buffer), uncounted(total)
    address, adds = uint64(packed.ctypes.data), sign != type(sign)(0)
    block = block_at(start, size, edges)
    end = edge_of(block + 1, size, edges, total.size)
    grid = grid_of(lows[block], highs[block], numbers, max_code)
    for tile in range(start, stop, codes.size):
        last = min(tile + codes.size, stop)
        begin = tile * bits // 8
        some = carray(pointer_to(address + uint64(begin)), (last - tile,), codes.dtype) if bits == 8 else codes
        if bits != 8:
            unpack_tile(packed[begin : (last * bits + 7) // 8], bits, codes)
        out = buffer[: last - tile] if buffer.size else total[tile:last]
        at = tile
        while at < last:
            if end <= at:
                block += 1
                end = edge_of(block + 1, size, edges, total.size)
                grid = grid_of(lows[block], highs[block], numbers, max_code)
            until = min(last, end)
            points, part = some[at - tile : until - tile], out[at - tile : until - tile]
            if minus and adds:
                add_signed(points, grid, minus, part, sign)
            elif minus:
                put_signed(points, grid, minus, part)
            elif adds:
                add(points, grid, part, sign)
            else:
                put(points, grid, part)
            at = until
        if buffer.size:
            store_past_caches(out, total[tile:last])


@kernel
def _allowed(packed: Array, count: int, bits: int, steps: Any, codes: Array) -> bool:  # noqa: ANN401
    """Return whether no code has a level above `steps`, or is a zero with a minus sign."""
    top = uint32(1 << (bits - 1))
    wrong = uint32(0)
    for tile in range(0, count, codes.size):
        end = min(tile + codes.size, count)
        unpack_tile(packed[tile * bits // 8 : (end * bits + 7) // 8], bits, codes)
        for i in range(end - tile):
            code = uint32(codes[i])
            wrong |= uint32(uint32(code & uint32(top - uint32(1))) > steps) | uint32(code == top)
    return bool(wrong == uint32(0))
