"""Codes of a vector that is there as tensors only, compiled: the vector is never written. The reference's bits.

Reference: `reference/gathered_codes.py`. Codes are made 32 at a time, by the loop over blocks of
`cpu/stochastic_rounding.py`; where a tensor ends among these, their elements are first copied next to each other.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import uint32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.checked_tensors import CheckedTensors, Spans
from laconic.kernels.cpu.block_norms import FLOATS, MASKS, ends_of_keys, keys_in, ranges
from laconic.kernels.cpu.code_tiles import code_buffer
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import gather, pointer_to
from laconic.kernels.cpu.llvm.packing import GROUP
from laconic.kernels.cpu.stochastic_rounding import constants, quantize, quantize_blocks
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference.flatten import slice_tensors
from laconic.kernels.reference.hashing import key_words
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS

Array = NDArray[Any]


def ranges_of_tensors(tensors: Sequence[Tensor], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """See `reference.gathered_codes.ranges_of_tensors`."""
    blocks = BlockLengths.of(lengths)
    if len(blocks) != 1 or _spans_of(tensors) is None:
        return ranges(_vector_of(tensors, blocks.total), blocks)
    dtype, found = tensors[0].dtype, list[Any]()

    def run(start: int, stop: int) -> None:
        spans = _spans_of(_between(tensors, start, stop, blocks.total))
        assert spans is not None, "parts of such tensors"
        found.append(_ends(*spans, MASKS[dtype]))

    in_chunks(blocks.total, run)
    return ends_of_keys(found, dtype)


def quantize_tensors(
    tensors: Sequence[Tensor], lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """See `reference.gathered_codes.quantize_tensors`."""
    blocks = BlockLengths.of(lengths)
    if blocks.are_short or _spans_of(tensors) is None:
        return quantize(_vector_of(tensors, blocks.total), lows, highs, blocks, bits, offset, key)
    total, dtype = blocks.total, tensors[0].dtype
    packed = new_vector((bits * total + 7) // 8, torch.uint8)
    out = packed.numpy()
    numbers = constants(dtype, ((1 << bits) - 1) << FRACTION_BITS)
    lows_, highs_ = lows.contiguous().numpy(), highs.contiguous().numpy()
    low_key, high_key = map(np.uint32, key_words(key))

    def run(start: int, stop: int) -> None:
        spans = _spans_of(_between(tensors, start, stop, total))
        assert spans is not None, "parts of such tensors"
        _quantize(
            *spans, lows_, highs_, blocks.size, blocks.sparse_edges, numbers, bits, offset, low_key, high_key,
            code_buffer(bits), out, np.zeros(GROUP, FLOATS[dtype]), start, stop, total,
        )  # fmt: skip

    in_chunks(total, run)
    return packed


def _spans_of(tensors: Sequence[Tensor]) -> Spans | None:
    """Return where tensors are, if a kernel can read all of them; see `flatten.spans_of`."""
    checked = tensors if type(tensors) is CheckedTensors else CheckedTensors(tensors)
    return checked.spans if checked.spans is not None or checked.look() else None


def _between(tensors: Sequence[Tensor], start: int, stop: int, total: int) -> Sequence[Tensor]:
    return tensors if stop - start == total else slice_tensors(tensors, start, stop)


def _vector_of(tensors: Sequence[Tensor], count: int) -> Tensor:
    """Return tensors, one behind the other, as a vector (count,)."""
    out = new_vector(count, tensors[0].dtype)
    gather(tensors, out)
    return out


@kernel
def _ends(addresses: Array, sizes: Array, mask: Any) -> Any:  # noqa: ANN401 - two integers of its type
    """Return the ends of tensors of floats, as keys; see `block_norms._ranges`. `mask` is all bits but the sign."""
    low, high = mask, ~mask
    for i in range(sizes.size):
        low, high = keys_in(carray(pointer_to(addresses[i]), (sizes[i],), type(mask)), mask, low, high)
    return low, high


@kernel
def _quantize(
    addresses: Array, sizes: Array, lows: Array, highs: Array, size: int, edges: Array, numbers: Array, bits: int,
    offset: int, low_key: Any, high_key: Any, codes: Array, packed: Array, few: Array, start: int, stop: int,  # noqa: ANN401
    total: int,
) -> None:  # fmt: skip
    """Write the packed codes of elements start .. stop - 1, which tensors have.

    Args:
        addresses: Where the tensors are.
        sizes: Their numbers of elements, which add up to stop - start.
        few: (GROUP,), a buffer of the tensors' type.
        start: First element, a multiple of GROUP.
        stop: Index behind the last element.
        total: Number of elements of all blocks. The other arguments are those of `quantize_blocks`.
    """
    begin, done, minus = start, start, uint32(0)  # `begin` is where a tensor begins, codes before `done` are written
    for number in range(sizes.size):
        end = begin + sizes[number]
        # as if the tensor were in a vector
        before = addresses[number] - uint64(begin * few.itemsize)
        values = carray(pointer_to(before), (total,), few.dtype)
        if done < begin:  # some of the next elements are in `few`
            until = min(end, done + few.size)
            for i in range(begin, until):
                few[i - done] = values[i]
            if until == done + few.size or until == stop:
                before = few.ctypes.data - uint64(done * few.itemsize)
                group = carray(pointer_to(before), (total,), few.dtype)
                quantize_blocks(
                    group, lows, highs, size, edges, numbers, bits, minus, offset, low_key, high_key, codes, packed,
                    done, until,
                )  # fmt: skip
                done = until
        if done >= begin:
            until = end if end == stop else end - (end - done) % few.size
            if until > done:
                quantize_blocks(
                    values, lows, highs, size, edges, numbers, bits, minus, offset, low_key, high_key, codes, packed,
                    done, until,
                )  # fmt: skip
                done = until
            for i in range(done, end):
                few[i - done] = values[i]
        begin = end
