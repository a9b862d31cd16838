"""Sums of quantized vectors, compiled: a tile of all of them is added up in the cache. Reference: `quantized_sums.py`.

The same bits. A tile is short, so that it stays in the first-level cache while each vector is added and the sum is
divided and measured. The codes of a later tile are fetched meanwhile: a processor does that by itself for few vectors.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.block_norms import FLOATS, bits_of, ends_of_keys, keys_in
from laconic.kernels.cpu.code_tiles import TILE, code_buffer, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to, uncounted
from laconic.kernels.cpu.grid_points import add, add_scaled, add_signed, grid_of, put, put_sum
from laconic.kernels.cpu.llvm.vectors import Codegen, cgutils, intrinsic, types
from laconic.kernels.cpu.past_caches import store_past_caches, tile_buffer
from laconic.kernels.cpu.stochastic_rounding import add_dequantized, add_levels, constants, ranges
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference import quantized_sums as reference_quantized_sums
from laconic.kernels.reference.stochastic_rounding import level_bits

Array = NDArray[Any]

_CACHE_LINE = 64  # bytes
_AHEAD = 2  # tiles


def sum_dequantized(
    packed: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor], lengths: Sequence[int], bits: int,
    out: Tensor, *, divisor: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `reference.quantized_sums.sum_dequantized`."""
    ends = _write(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0, out, divisor)
    if ends is None:
        by_blocks = zip(lows, highs, strict=True)
        reference_quantized_sums.by_adding(add_dequantized, packed, by_blocks, (lengths, bits), out, divisor)
        return ranges(out, [out.numel()])
    return ends


def put_moved(
    base: Tensor, packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """See `reference.quantized_sums.put_moved`."""
    blocks = BlockLengths.of(lengths)
    if blocks.are_short or lows.dtype is not out.dtype:
        add_dequantized(packed, lows, highs, blocks, bits, out.copy_(base))
        return
    codes_of, lows_, highs_ = (each.contiguous().numpy() for each in (packed, lows, highs))
    of_base, total, max_code = base.contiguous().numpy(), out.numpy(), (1 << bits) - 1
    numbers = constants(out.dtype, max_code)

    def run(start: int, stop: int) -> None:
        _move_tiles(
            of_base, codes_of, lows_, highs_, blocks.size, blocks.sparse_edges, numbers, bits, int32(max_code),
            code_buffer(bits), tile_buffer(out, TILE), total, start, stop,
        )  # fmt: skip

    in_chunks(total.size, run)


def sum_levels(
    packed: Sequence[Tensor], scales: Sequence[Tensor], lengths: Sequence[int], steps: int, out: Tensor,
    *, divisor: int = 1,
) -> None:  # fmt: skip
    """See `reference.quantized_sums.sum_levels`."""
    bits = level_bits(steps)
    if _write(packed, None, scales, lengths, bits, steps, 1 << (bits - 1), out, divisor) is None:
        reference_quantized_sums.by_adding(add_levels, packed, zip(scales, strict=True), (lengths, steps), out, divisor)


def _write(
    packed: Sequence[Tensor], lows: Sequence[Tensor] | None, highs: Sequence[Tensor], lengths: Sequence[int], bits: int,
    max_code: int, minus: int, out: Tensor, divisor: int,
) -> tuple[Tensor, Tensor] | None:  # fmt: skip
    """Write the sum in one pass, and return its ends. Without `lows`, all low ends are 0.

    Returns None, and does nothing, for short blocks and other types than the sum's.
    """
    blocks = BlockLengths.of(lengths)
    if blocks.are_short or any(ends.dtype != out.dtype for ends in (*(lows or ()), *highs)) or not out.is_contiguous():
        return None
    streams = [each.contiguous() for each in packed]
    addresses = np.array([each.data_ptr() for each in streams], np.uint64)
    highs_ = np.stack([each.numpy() for each in highs])
    lows_ = np.zeros_like(highs_) if lows is None else np.stack([each.numpy() for each in lows])
    total, numbers = out.numpy(), constants(out.dtype, max_code)
    keys, mask = bits_of(out)
    is_exact = math.frexp(divisor)[0] == 0.5  # the inverse of a power of two: a product has the bits of the quotient
    number = FLOATS[out.dtype]
    scaled_by = number(1 / divisor if is_exact else 1), number(1 if is_exact else divisor)
    found: list[Any] = []

    def run(start: int, stop: int) -> None:
        ends = _sum_tiles(
            addresses, lows_, highs_, blocks.size, blocks.sparse_edges, numbers, bits, int32(max_code), int32(minus),
            code_buffer(bits), tile_buffer(out, TILE), total, keys, mask, *scaled_by, start, stop,
        )  # fmt: skip
        found.append(ends)

    in_chunks(total.size, run)
    return ends_of_keys(found, out.dtype)


@intrinsic  # type: ignore[untyped-decorator]
def _fetch(typing: Any, address: Any) -> Codegen:  # noqa: ANN401
    """Ask for the cache line at an address, uint64, which is going to be read."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        # llvm.prefetch(pointer, 0 to read, 3 into all caches, 1 data)
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [builder.inttoptr(args[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.none(types.uint64), codegen


@kernel
def _fetch_lines(address: int, start: int, stop: int) -> None:
    """Ask for the cache lines of bytes start .. stop - 1 after an address, uint64."""
    for at in range(start, stop, _CACHE_LINE):
        _fetch(address + uint64(at))


@kernel
def _sum_tiles(
    addresses: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, max_code: Any,  # noqa: ANN401
    minus: Any, codes: Array, buffer: Array, total: Array, keys: Array, mask: Any, factor: Any, divisor: Any,  # noqa: ANN401
    start: int, stop: int,
) -> Any:  # fmt: skip # noqa: ANN401
    """Write the sums of elements start .. stop - 1, times a factor and divided, and return their ends as keys.

    Args:
        addresses: Where the packed codes of each vector are.
        lows: (vectors, blocks), the low ends.
        highs: (vectors, blocks), the high ends.
        codes: A code_buffer.
        total: (d,), overwritten.
        keys: The same memory as integers.
        buffer: A tile_buffer of the total.
        mask: All bits of one but the sign.
        factor: Factor of the sums, of the total's type.
        divisor: Divisor of the sums, of the total's type.
        start: First element, a multiple of CHUNK. The other arguments are those of `stochastic_rounding.put_points`.
        stop: Index behind the last element.
    """
    lows, highs, edges, numbers = uncounted(lows), uncounted(highs), uncounted(edges), uncounted(numbers)
    codes, total, keys = uncounted(codes), uncounted(total), uncounted(keys)
    buffer, buffered_keys = uncounted(buffer), uncounted(buffer.view(keys.dtype))
    one, n_bytes = numbers[2], (total.size * bits + 7) // 8
    low_key, high_key = mask, ~mask
    for tile in range(start, stop, codes.size):
        last = min(tile + codes.size, stop)
        begin, end = tile * bits // 8, (last * bits + 7) // 8
        part = buffer[: last - tile] if buffer.size else total[tile:last]
        if minus:
            for i in range(part.size):
                part[i] = numbers[1]
        for vector in range(addresses.size):
            ahead = begin + _AHEAD * (codes.size * bits // 8)
            _fetch_lines(addresses[vector], ahead, min(ahead + end - begin, n_bytes))
            from_here = pointer_to(addresses[vector] + uint64(begin))
            some = carray(from_here, (last - tile,), codes.dtype) if bits == 8 else codes
            if bits != 8:
                unpack_tile(carray(from_here, (end - begin,), np.uint8), bits, codes)
            times = factor if vector == addresses.size - 1 and divisor == one else one
            at = tile
            block = block_at(tile, size, edges)
            while at < last:
                until = min(last, edge_of(block + 1, size, edges, total.size))
                grid = grid_of(lows[vector, block], highs[vector, block], numbers, max_code)
                points, out = some[at - tile : until - tile], part[at - tile : until - tile]
                if minus:
                    add_signed(points, grid, minus, out, one)
                elif vector == 0:
                    put(points, grid, out)
                elif times != one:
                    add_scaled(points, grid, out, times)
                else:
                    add(points, grid, out, one)
                at = until
                block += 1
        if divisor != one:
            for i in range(part.size):
                part[i] /= divisor
        elif factor != one and (minus or addresses.size == 1):
            for i in range(part.size):
                part[i] *= factor
        if buffer.size:
            low_key, high_key = keys_in(buffered_keys[: last - tile], mask, low_key, high_key)
            store_past_caches(part, total[tile:last])
        else:
            low_key, high_key = keys_in(keys[tile:last], mask, low_key, high_key)
    return low_key, high_key


@kernel
def _move_tiles(
    base: Array, packed: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int,
    max_code: Any, codes: Array, buffer: Array, total: Array, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write `base` plus the values of codes to elements start .. stop - 1 of `total`; others as for `_sum_tiles`."""
    lows, highs, edges, numbers = uncounted(lows), uncounted(highs), uncounted(edges), uncounted(numbers)
    codes, total, base, packed = uncounted(codes), uncounted(total), uncounted(base), uncounted(packed)
    buffer = uncounted(buffer)
    block = block_at(start, size, edges)
    end = edge_of(block + 1, size, edges, total.size)
    grid = grid_of(lows[block], highs[block], numbers, max_code)
    for tile in range(start, stop, codes.size):
        last = min(tile + codes.size, stop)
        some = packed[tile * bits // 8 : (last * bits + 7) // 8]
        if bits != 8:
            unpack_tile(some, bits, codes)
        part = buffer[: last - tile] if buffer.size else total[tile:last]
        at = tile
        while at < last:
            if end <= at:
                block += 1
                end = edge_of(block + 1, size, edges, total.size)
                grid = grid_of(lows[block], highs[block], numbers, max_code)
            until = min(last, end)
            of_tile = (some if bits == 8 else codes)[at - tile : until - tile]
            put_sum(base[at:until], of_tile, grid, part[at - tile : until - tile])
            at = until
        if buffer.size:
            store_past_caches(part, total[tile:last])
