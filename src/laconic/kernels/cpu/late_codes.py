"""Codes of a part of a vector, compiled: they are rounded, and replace it, while it is in the cache.

Reference: `reference/late_codes.py`.
"""

from typing import Any

import numpy as np
from numba import int32
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu.code_tiles import TILE, code_buffer
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.stochastic_rounding import constants, put_points, quantize_blocks
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference.hashing import key_words
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS

Array = NDArray[Any]

_REPLACED = 8 * TILE  # elements that are rounded and replaced while they stay in the second-level cache


def put_codes(
    values: Tensor, lows: Tensor, highs: Tensor, bits: int, offset: int, key: int, packed: Tensor, *, replaces: bool
) -> None:
    """See `reference.late_codes.put_codes`."""
    floats, out, max_code = values.numpy(), packed.numpy(), (1 << bits) - 1
    blocks = BlockLengths.uniform(floats.size, floats.size)
    block = lows.contiguous().numpy(), highs.contiguous().numpy(), blocks.size, blocks.sparse_edges
    to_codes, of_codes = constants(values.dtype, max_code << FRACTION_BITS), constants(values.dtype, max_code)
    low_key, high_key = map(np.uint32, key_words(key))
    each = _REPLACED if replaces else floats.size

    def run(start: int, stop: int) -> None:
        _put_codes(
            floats, *block, to_codes, of_codes, bits, int32(max_code), np.uint32(0), offset, low_key, high_key,
            code_buffer(bits), out, start, stop, each, replaces,
        )  # fmt: skip

    in_chunks(floats.size, run)


@kernel
def _put_codes(
    values: Array, lows: Array, highs: Array, size: int, edges: Array, to_codes: Array, of_codes: Array, bits: int,
    max_code: Any, minus: Any, offset: int, low_key: Any, high_key: Any, codes: Array, packed: Array,  # noqa: ANN401
    start: int, stop: int, each: int, replaces: bool,
) -> None:  # fmt: skip
    """Write the packed codes of elements start .. stop - 1, and what they stand for in their places if asked to.

    Args:
        values: (d,) floats, overwritten where it `replaces` them.
        to_codes: `constants` to round by.
        of_codes: `constants` of what codes stand for, as `max_code`.
        each: Elements that are rounded before they are replaced. The others are those of `quantize_blocks`.
    """
    for at in range(start, stop, each):
        until = min(at + each, stop)
        quantize_blocks(
            values, lows, highs, size, edges, to_codes, bits, minus, offset, low_key, high_key, codes, packed, at, until
        )
        if replaces:
            put_points(
                packed, lows, highs, size, edges, of_codes, bits, max_code, int32(0), codes, values[:0], values, at,
                until, of_codes[1],
            )  # fmt: skip
