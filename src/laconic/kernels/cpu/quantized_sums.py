"""Sums of quantized vectors, compiled: a tile of all of them is added up in the cache. Reference: `quantized_sums.py`.

The same bits. Each tile's codes are turned into values by the loops of `cpu/stochastic_rounding.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import int32
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.block_norms import FLOATS
from laconic.kernels.cpu.code_tiles import LONG_TILE, code_buffer, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to
from laconic.kernels.cpu.stochastic_rounding import add_dequantized, add_levels, constants, factor_of, write_values
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference import quantized_sums as reference_quantized_sums
from laconic.kernels.reference.stochastic_rounding import level_bits

Array = NDArray[Any]


def sum_dequantized(
    packed: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor], lengths: Sequence[int], bits: int,
    out: Tensor, *, divisor: int = 1,
) -> None:  # fmt: skip
    """See `reference.quantized_sums.sum_dequantized`."""
    if not _write(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0, out, divisor):
        reference_quantized_sums.by_adding(
            add_dequantized, packed, zip(lows, highs, strict=True), (lengths, bits), out, divisor
        )


def sum_levels(
    packed: Sequence[Tensor], scales: Sequence[Tensor], lengths: Sequence[int], steps: int, out: Tensor,
    *, divisor: int = 1,
) -> None:  # fmt: skip
    """See `reference.quantized_sums.sum_levels`."""
    bits, lows = level_bits(steps), [torch.zeros_like(each) for each in scales]
    if not _write(packed, lows, scales, lengths, bits, steps, 1 << (bits - 1), out, divisor):
        reference_quantized_sums.by_adding(add_levels, packed, zip(scales, strict=True), (lengths, steps), out, divisor)


def _write(
    packed: Sequence[Tensor], lows: Sequence[Tensor], highs: Sequence[Tensor], lengths: Sequence[int], bits: int,
    max_code: int, minus: int, out: Tensor, divisor: int,
) -> bool:  # fmt: skip
    """Write the sum in one pass. Returns False, and does nothing, for short blocks and other types than the sum's."""
    blocks = BlockLengths.of(lengths)
    if blocks.are_short or any(ends.dtype != out.dtype for ends in (*lows, *highs)) or not out.is_contiguous():
        return False
    streams = [each.contiguous() for each in packed]
    addresses = np.array([each.data_ptr() for each in streams], np.uint64)
    lows_, highs_ = (np.stack([each.numpy() for each in ends]) for ends in (lows, highs))
    total, numbers = out.numpy(), constants(out.dtype, max_code)
    by = FLOATS[out.dtype](divisor)

    def run(start: int, stop: int) -> None:
        _sum_tiles(
            addresses, lows_, highs_, blocks.size, blocks.sparse_edges, numbers, bits, int32(max_code), int32(minus),
            code_buffer(bits, LONG_TILE), total, by, start, stop,
        )  # fmt: skip

    in_chunks(total.size, run)
    return True


@kernel
def _sum_tiles(
    addresses: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int, max_code: Any,  # noqa: ANN401
    minus: Any, codes: Array, total: Array, divisor: Any, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the divided sums of elements start .. stop - 1.

    Args:
        addresses: Where the packed codes of each vector are.
        lows: (vectors, blocks), the low ends.
        highs: (vectors, blocks), the high ends.
        codes: A code_buffer.
        total: (d,), overwritten.
        divisor: Divisor of the sums, of the total's type.
        start: First element, a multiple of CHUNK. The other arguments are those of `stochastic_rounding._dequantize`.
        stop: Index behind the last element.
    """
    one, n_bytes = numbers[2], (total.size * bits + 7) // 8
    for tile in range(start, stop, codes.size):
        last = min(tile + codes.size, stop)
        part = total[tile:last]
        for i in range(part.size):
            part[i] = numbers[1]
        for vector in range(addresses.size):
            packed = carray(pointer_to(addresses[vector]), (n_bytes,), np.uint8)
            unpack_tile(packed[tile * bits // 8 : (last * bits + 7) // 8], bits, codes)
            at = tile
            block = block_at(tile, size, edges)
            while at < last:
                until = min(last, edge_of(block + 1, size, edges, total.size))
                low, high = lows[vector, block], highs[vector, block]
                factor = factor_of(low, high, numbers)
                bottom = low * factor
                step = (high * factor - bottom) / numbers[0]
                write_values(
                    codes[at - tile : until - tile], bottom, step, one / factor, high, max_code, minus,
                    total[at:until], one,
                )  # fmt: skip
                at = until
                block += 1
        if divisor != one:
            for i in range(part.size):
                part[i] /= divisor
