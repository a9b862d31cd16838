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
from laconic.kernels.cpu.code_tiles import code_buffer, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to
from laconic.kernels.cpu.llvm.vectors import Codegen, cgutils, intrinsic, types
from laconic.kernels.cpu.stochastic_rounding import (
    add_dequantized,
    add_levels,
    constants,
    factor_of,
    ranges,
    value_of,
    write_values,
)
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
            code_buffer(bits), total, start, stop,
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
            code_buffer(bits), total, keys, mask, *scaled_by, start, stop,
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
def _uncounted(array: Array) -> Array:
    """Return an array's memory as another one: for its slices no references are counted, which costs as a tile does."""
    seen: Array = carray(pointer_to(uint64(array.ctypes.data)), array.shape, array.dtype)
    return seen


@kernel
def _sum_tiles(
    addresses: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, max_code: Any,  # noqa: ANN401
    minus: Any, codes: Array, total: Array, keys: Array, mask: Any, factor: Any, divisor: Any, start: int, stop: int,  # noqa: ANN401
) -> Any:  # fmt: skip # noqa: ANN401
    """Write the sums of elements start .. stop - 1, times a factor and divided, and return their ends as keys.

    Args:
        addresses: Where the packed codes of each vector are.
        lows: (vectors, blocks), the low ends.
        highs: (vectors, blocks), the high ends.
        codes: A code_buffer.
        total: (d,), overwritten.
        keys: The same memory as integers.
        mask: All bits of one but the sign.
        factor: Factor of the sums, of the total's type.
        divisor: Divisor of the sums, of the total's type.
        start: First element, a multiple of CHUNK. The other arguments are those of `stochastic_rounding._dequantize`.
        stop: Index behind the last element.
    """
    lows, highs, edges, numbers = _uncounted(lows), _uncounted(highs), _uncounted(edges), _uncounted(numbers)
    codes, total, keys = _uncounted(codes), _uncounted(total), _uncounted(keys)
    one, n_bytes = numbers[2], (total.size * bits + 7) // 8
    low_key, high_key = mask, ~mask
    for tile in range(start, stop, codes.size):
        last = min(tile + codes.size, stop)
        begin, end = tile * bits // 8, (last * bits + 7) // 8
        part = total[tile:last]
        if minus:
            for i in range(part.size):
                part[i] = numbers[1]
        for vector in range(addresses.size):
            ahead = begin + _AHEAD * (codes.size * bits // 8)
            for at in range(ahead, min(ahead + end - begin, n_bytes), _CACHE_LINE):
                _fetch(addresses[vector] + uint64(at))
            packed = carray(pointer_to(addresses[vector]), (n_bytes,), np.uint8)[begin:end]
            times = factor if vector == addresses.size - 1 and divisor == one else one
            if bits == 8:
                _add_tile(
                    packed, lows[vector], highs[vector], size, edges, numbers, max_code, minus, total, tile, last,
                    vector == 0, times,
                )  # fmt: skip
            else:
                unpack_tile(packed, bits, codes)
                _add_tile(
                    codes, lows[vector], highs[vector], size, edges, numbers, max_code, minus, total, tile, last,
                    vector == 0, times,
                )  # fmt: skip
        if divisor != one:
            for i in range(part.size):
                part[i] /= divisor
        elif factor != one and (minus or addresses.size == 1):
            for i in range(part.size):
                part[i] *= factor
        low_key, high_key = keys_in(keys[tile:last], mask, low_key, high_key)
    return low_key, high_key


@kernel
def _add_tile(
    codes: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, max_code: Any, minus: Any,  # noqa: ANN401
    total: Array, tile: int, last: int, is_initial: bool, times: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Add the values of a tile's codes to elements tile .. last - 1.

    Args:
        codes: One for each element.
        is_initial: Whether nothing was added before: values are written, but for those with a sign.
        times: Factor of the sum then; 1 where `is_initial`, or there are signs. The others are those of `_sum_tiles`.
    """
    at, one = tile, numbers[2]
    block = block_at(tile, size, edges)
    while at < last:
        until = min(last, edge_of(block + 1, size, edges, total.size))
        low, high = lows[block], highs[block]
        unit = factor_of(low, high, numbers)
        bottom = low * unit
        step = (high * unit - bottom) / numbers[0]
        some, out = codes[at - tile : until - tile], total[at:until]
        if minus:
            write_values(some, bottom, step, one / unit, high, max_code, minus, out, one)
        elif is_initial:
            _put(some, bottom, step, one / unit, high, max_code, out)
        elif times != one:
            _add_scaled(some, bottom, step, one / unit, high, max_code, out, times)
        else:
            _add(some, bottom, step, one / unit, high, max_code, out)
        at = until
        block += 1


@kernel
def _move_tiles(
    base: Array, packed: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int,
    max_code: Any, codes: Array, total: Array, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write `base` plus the values of codes to elements start .. stop - 1 of `total`; others as for `_sum_tiles`."""
    lows, highs, edges, numbers = _uncounted(lows), _uncounted(highs), _uncounted(edges), _uncounted(numbers)
    codes, total, base, packed = _uncounted(codes), _uncounted(total), _uncounted(base), _uncounted(packed)
    one = numbers[2]
    block = block_at(start, size, edges)
    end = edge_of(block + 1, size, edges, total.size)
    for tile in range(start, stop, codes.size):
        last = min(tile + codes.size, stop)
        unpack_tile(packed[tile * bits // 8 : (last * bits + 7) // 8], bits, codes)
        at = tile
        while at < last:
            until = min(last, end)
            low, high = lows[block], highs[block]
            unit = factor_of(low, high, numbers)
            bottom = low * unit
            step = (high * unit - bottom) / numbers[0]
            some, before, out = codes[at - tile : until - tile], base[at:until], total[at:until]
            for i in range(some.size):
                out[i] = before[i] + value_of(int32(some[i]), bottom, step, one / unit, high, max_code)
            at = until
            if until == end:
                block += 1
                end = edge_of(block + 1, size, edges, total.size)


@kernel
def _put(codes: Array, bottom: Any, step: Any, unfactor: Any, high: Any, max_code: Any, total: Array) -> None:  # noqa: ANN401
    """Write the values of codes without a sign; see `write_values`."""
    for i in range(codes.size):
        total[i] = value_of(int32(codes[i]), bottom, step, unfactor, high, max_code)


@kernel
def _add(codes: Array, bottom: Any, step: Any, unfactor: Any, high: Any, max_code: Any, total: Array) -> None:  # noqa: ANN401
    """Add them."""
    for i in range(codes.size):
        total[i] += value_of(int32(codes[i]), bottom, step, unfactor, high, max_code)


@kernel
def _add_scaled(
    codes: Array, bottom: Any, step: Any, unfactor: Any, high: Any, max_code: Any, total: Array, factor: Any,  # noqa: ANN401
) -> None:  # fmt: skip
    """Add them, and multiply the sum."""
    for i in range(codes.size):
        total[i] = (total[i] + value_of(int32(codes[i]), bottom, step, unfactor, high, max_code)) * factor
