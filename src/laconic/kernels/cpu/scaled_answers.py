"""A server's answer to scaled signs, compiled: no sum of the packets is ever in memory.

Reference: `reference/scaled_answers.py`. The bits are those of `cpu/residuals.py`, which adds packets to a
vector first. One pass measures the corrected mean, and writes its signs; the other makes it again and writes what the
answer leaves of it. Both read the old residual and one bit of each packet, so they take half of the memory's time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import is_long, pointer_to
from laconic.kernels.cpu.llvm.residuals import BEYOND
from laconic.kernels.cpu.llvm.scaled_answers import mean_left, mean_left_past_caches, mean_measured
from laconic.kernels.cpu.llvm.vectors import Words
from laconic.kernels.cpu.mask_streams import bit_buffer, trimmed, words_of
from laconic.kernels.cpu.residuals import (
    TILE,
    add_scaled_signs,
    correct_signs,
    divisor_of,
    join_sums,
    put_sum,
)
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference.scaled_answers import by_sum

Array = NDArray[Any]

_CACHED = 1 << 20  # elements, some of which a cache holds; a multiple of 64


def answer_scaled_signs(
    packed: Sequence[Tensor], scales: Sequence[Tensor], residual: Tensor, new_residual: Tensor, lengths: Sequence[int],
    *, divisor: int, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `reference.scaled_answers.answer_scaled_signs`."""
    blocks = BlockLengths.of(lengths)
    if blocks.are_short or new_residual.dtype != torch.float32 or not packed:
        return by_sum(
            add_scaled_signs, correct_signs, packed, scales, residual, new_residual, blocks, divisor=divisor,
            decay=decay,
        )  # fmt: skip
    count = new_residual.shape[0]
    signs, voters, sizes = _senders(packed, scales, blocks.n_blocks)
    before, after = residual.contiguous().numpy(), new_residual.numpy()
    stream, size, edges = bit_buffer(count), blocks.size, blocks.sparse_edges
    words, sums, carried = words_of(stream), np.zeros(blocks.n_blocks), np.zeros(-(-count // TILE))
    numbers, by = np.array([divisor, decay], before.dtype), _divisor_behind(len(signs), divisor, before.dtype)
    in_chunks(
        count,
        lambda start, stop: _measure(
            words, voters, sizes, before, numbers, by, size, edges, sums, carried, start, stop
        ),
    )
    means = np.empty(blocks.n_blocks, before.dtype)
    join_sums(size, edges, count, sums, carried, means)
    past_caches = is_long(new_residual) and new_residual.data_ptr() % 64 == 0

    def write_unsent(start: int, stop: int) -> None:
        for at in reversed(range(start, stop, _CACHED)):  # what was measured last is still in the caches
            _write_unsent(
                words, voters, sizes, before, numbers, by, size, edges, means, after, past_caches,
                at, min(at + _CACHED, stop),
            )  # fmt: skip

    in_chunks(count, write_unsent)
    return trimmed(stream, count), torch.from_numpy(means)


def _senders(packed: Sequence[Tensor], scales: Sequence[Tensor], n_blocks: int) -> tuple[list[Tensor], Array, Array]:
    """Return the signs of each sender, where their bytes are, and (blocks, senders) float32, their scales."""
    signs: list[Tensor] = []
    addresses, sizes = np.empty(len(packed), np.uint64), np.empty((n_blocks, len(packed)), np.float32)
    for number, (bits, scale) in enumerate(zip(packed, scales, strict=True)):
        bits = bits.contiguous()
        signs += (bits,)
        addresses[number], sizes[:, number] = bits.data_ptr(), scale.numpy()
    return signs, addresses, sizes


def _divisor_behind(n_voters: int, divisor: int, dtype: Any) -> Any:  # noqa: ANN401
    """Return the divisor of a sum as `llvm/scaled_answers.py` takes it: None where `_sums_of_two` has all, divided."""
    return None if n_voters <= 2 else divisor_of(divisor, dtype) or (dtype.type(0), dtype.type(1))


@kernel
def _measure(
    words: Words, voters: Words, sizes: Array, residual: Array, numbers: Array, by: Any, size: int,  # noqa: ANN401
    edges: Array,
    sums: Array, carried: Array, start: int, stop: int,
) -> None:  # fmt: skip
    """Write the signs of the corrected mean of elements start .. stop - 1, and add up its magnitudes.

    Args:
        words: The stream of signs, overwritten.
        voters: (voters,) uint64, where the bytes of each packet's signs are.
        sizes: (blocks, voters), the scales of each packet.
        residual: (d,), residual before the step.
        numbers: The divisor of the sum, and the factor of the residual.
        by: From `_divisor_behind`.
        size: The size of all blocks but the last; 0 where `edges` has them.
        edges: (blocks + 1,) int64, where blocks begin and end; empty where there is a size.
        sums: (blocks,) float64, 0; what the tile in which a block begins adds up for it.
        carried: (tiles,) float64, 0; what a tile adds up for a block that began before it.
        start: First element, a multiple of TILE.
        stop: Index behind the last element, a multiple of TILE or d.
    """
    count, n_voters = residual.size, sizes.shape[1]
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        begin, end = edge_of(block, size, edges, count), edge_of(block + 1, size, edges, count)
        at, total = tile, 0.0
        while at < last:
            n = (min(end, last) - at) // 64
            if n > 0:
                added = mean_measured(
                    words, voters, sizes[block], residual, residual, at, n, n_voters,
                    _sums_of_two(sizes[block], numbers), by, numbers[1], numbers[0],
                )  # fmt: skip
                if added >= BEYOND:
                    added = 0.0
                    for i in range(at, at + 64 * n):
                        added += np.float64(abs(_corrected(voters, sizes, block, residual[i], numbers, i)))
                total += added
                at += 64 * n
            else:
                word = uint64(0)
                for i in range(at, min(at + 64, last)):
                    if i == end:
                        put_sum(sums, carried, block, tile, begin, total)
                        block, begin, total = block + 1, end, 0.0
                        end = edge_of(block + 1, size, edges, count)
                    value = _corrected(voters, sizes, block, residual[i], numbers, i)
                    if value < 0:
                        word |= uint64(1) << uint64(i - at)
                    total += np.float64(abs(value))
                words[at >> 6] = word
                at = min(at + 64, last)
            if at == end:
                put_sum(sums, carried, block, tile, begin, total)
                block, begin, total = block + 1, end, 0.0
                end = edge_of(block + 1, size, edges, count)
        if begin < last:
            put_sum(sums, carried, block, tile, begin, total)


@kernel
def _write_unsent(
    words: Words, voters: Words, sizes: Array, residual: Array, numbers: Array, by: Any, size: int,  # noqa: ANN401
    edges: Array,
    means: Array, out: Array, past_caches: bool, start: int, stop: int,
) -> None:  # fmt: skip
    """Write what the answer leaves of the corrected mean of elements start .. stop - 1. Arguments as for `_measure`.

    Args:
        means: (blocks,), the scales of the answer.
        out: (d,), overwritten.
        past_caches: Store past the caches; `out` must begin at a multiple of 64 bytes.
    """
    count, n_voters = residual.size, sizes.shape[1]
    block = block_at(start, size, edges)
    end = edge_of(block + 1, size, edges, count)
    at = start
    while at < stop:
        n = (min(end, stop) - at) // 64
        if n > 0 and past_caches:
            mean_left_past_caches(
                words, voters, sizes[block], residual, out, at, n, n_voters,
                _sums_of_two(sizes[block], numbers), by, numbers[1], means[block],
            )  # fmt: skip
        elif n > 0:
            mean_left(
                words, voters, sizes[block], residual, out, at, n, n_voters,
                _sums_of_two(sizes[block], numbers), by, numbers[1], means[block],
            )  # fmt: skip
        else:
            for i in range(at, min(at + 64, stop)):
                if i == end:
                    block += 1
                    end = edge_of(block + 1, size, edges, count)
                value = _corrected(voters, sizes, block, residual[i], numbers, i)
                out[i] = value + means[block] if value < 0 else value - means[block]
        at = at + 64 * n if n > 0 else min(at + 64, stop)
        if at == end and at < stop:
            block += 1
            end = edge_of(block + 1, size, edges, count)


@kernel
def _sums_of_two(sizes: Array, numbers: Array) -> Any:  # noqa: ANN401 - a tuple of numba's own scalars
    """Return what two voters' signs stand for where they agree, and where they differ and the first one is positive.

    Both are the first one's size where there is no other, and divided where there are no more than two.
    """
    one, other = sizes[0], sizes[1 % sizes.size]
    total, difference = (one + other, one - other) if sizes.size > 1 else (one, one)
    return (total, difference) if sizes.size > 2 else (total / numbers[0], difference / numbers[0])


@kernel
def _corrected(
    voters: Words, sizes: Array, block: int, before: Any, numbers: Array, i: int  # noqa: ANN401
) -> Any:  # noqa: ANN401  # fmt: skip
    """Return element i of the corrected mean."""
    total = numbers[0] - numbers[0]
    for voter in range(sizes.shape[1]):
        own = sizes[block, voter]
        byte = carray(pointer_to(voters[voter]), ((i >> 3) + 1,), np.uint8)[i >> 3]
        is_negative = (byte >> (i & 7)) & 1
        total += -own if is_negative else own
    return total / numbers[0] + numbers[1] * before
