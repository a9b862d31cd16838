"""Error feedback with scaled signs, compiled: one pass corrects, packs and adds up, one takes away what was sent.

Reference: `reference/residuals.py`. The same bits, but for the means of float32 magnitudes.

Passes go tile by tile. What a tile adds up for a block is added to the block's sum in the order of the tiles, so that
the number of threads changes no bit. Groups of 64 elements within one block go through LLVM lanes
(`llvm/residuals.py`); where a block ends among them, their magnitudes are added one by one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.checks import FLOATS
from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import is_long
from laconic.kernels.cpu.llvm.residuals import BEYOND, correct_run, correct_run_past_caches, scaled_run
from laconic.kernels.cpu.llvm.vectors import Words
from laconic.kernels.cpu.mask_streams import bit_buffer, padded, trimmed, words_of
from laconic.kernels.cpu.short_blocks import repeat
from laconic.kernels.cpu.short_norms import short_means
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference import residuals as reference_residuals

Array = NDArray[Any]

TILE = 1 << 14  # elements; a chunk of threads is several of them
_SHORT_TILE = 1 << 10  # the same, with a scale for each element


def correct(vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0) -> None:
    """See `reference.residuals.correct`."""
    values, before = vector.numpy(), _array(residual)
    in_chunks(
        len(values),
        lambda start, stop: _correct(values[start:stop], before[start:stop], float(divisor), float(decay)),
    )


def mean_signs(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """See `reference.residuals.mean_signs`."""
    return _signs_and_means(_array(values), None, None, None, lengths, (0.0, 1.0), 1, False)


def correct_signs(
    vector: Tensor, residual: Tensor, lengths: Sequence[int], *, divisor: int = 1, decay: float = 1.0
) -> tuple[Tensor, Tensor]:
    """See `reference.residuals.correct_signs`."""
    factors = (0.0, float(decay))
    return _signs_and_means(vector.numpy(), _array(residual), None, None, lengths, factors, divisor, False)


def momentum_correct_signs(
    gradient: Tensor, momentum: Tensor, residual: Tensor, new_momentum: Tensor, lengths: Sequence[int],
    *, mu: float, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `reference.residuals.momentum_correct_signs`."""
    past_caches = is_long(new_momentum) and new_momentum.data_ptr() % 64 == 0
    return _signs_and_means(
        gradient.numpy(), _array(residual), _array(momentum), new_momentum.numpy(), lengths,
        (float(mu), float(decay)), 1, past_caches,
    )  # fmt: skip


def put_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], out: Tensor) -> None:
    """See `reference.residuals.put_scaled_signs`."""
    if _are_alike(scales, out):
        _write(packed, scales, lengths, out, add=False)
    else:
        reference_residuals.put_scaled_signs(packed, scales, lengths, out)


def add_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], total: Tensor) -> None:
    """See `reference.residuals.add_scaled_signs`."""
    if _are_alike(scales, total):
        _write(packed, scales, lengths, total, add=True)
    else:
        reference_residuals.add_scaled_signs(packed, scales, lengths, total)


def _are_alike(scales: Tensor, out: Tensor) -> bool:
    return out.dtype in FLOATS and out.dtype == scales.dtype and out.is_contiguous()


def _array(values: Tensor) -> Array:
    """Return an array to read from."""
    values = values.detach() if values.requires_grad else values
    return (values if values.is_contiguous() else values.contiguous()).numpy()


def _signs_and_means(
    vector: Array, residual: Array | None, momentum: Array | None, new_momentum: Array | None,
    lengths: Sequence[int], factors: tuple[float, float], divisor: int, past_caches: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the packed signs and the means of what a pass leaves in the vector.

    Args:
        vector: (d,) floats, overwritten where there is a residual.
        residual: (d,); None to leave the vector as it is.
        momentum: (d,); None for none.
        new_momentum: (d,), overwritten; None for none.
        lengths: Elements of each block.
        factors: Of the momentum and of the residual.
        divisor: The divisor of the vector.
        past_caches: Store the new momentum past the caches.
    """
    blocks, count = BlockLengths.of(lengths), len(vector)
    stream = bit_buffer(count)
    by = divisor_of(divisor, vector.dtype)
    one = BlockLengths.uniform(count, count) if blocks.are_short else blocks  # short blocks are added up afterwards
    words, sums, carried = words_of(stream), np.zeros(one.n_blocks), np.zeros(-(-count // TILE))
    in_chunks(
        count,
        lambda start, stop: _tiles(
            words, vector, residual, momentum, new_momentum, factors, by, one.size, one.sparse_edges, sums, carried,
            past_caches, start, stop,
        ),
    )  # fmt: skip
    packed = trimmed(stream, count)
    if vector.dtype == np.float64:  # whose order of additions shows in the result
        return packed, reference_residuals.mean_magnitudes(torch.from_numpy(vector), blocks)
    means, size, edges = new_vector(blocks.n_blocks, torch.float32), blocks.size, blocks.sparse_edges
    found = means.numpy()
    if one is blocks:
        join_sums(size, edges, count, sums, carried, found)
    else:
        in_chunks(len(found), lambda start, stop: _short_means(vector, size, edges, found, start, stop), count)
    return packed, means


def divisor_of(divisor: int, dtype: Any) -> Any:  # noqa: ANN401
    """Return a divisor as `llvm/residuals.py` takes it: None for 1, (0, 1 / divisor) for another power of two."""
    if divisor == 1:
        return None
    by = dtype.type(divisor)
    return (dtype.type(0), dtype.type(1 / divisor)) if divisor & (divisor - 1) == 0 else by


def _write(packed: Tensor, scales: Tensor, lengths: Sequence[int], out: Tensor, *, add: bool) -> None:
    """Write or add every block's scale with the signs of its elements."""
    blocks = BlockLengths.of(lengths)
    elements = (out.detach() if out.requires_grad else out).numpy()
    words, sizes = padded(packed, elements.size), _array(scales)
    size, edges, sign = blocks.size, blocks.sparse_edges, 1 if add else None
    scaled = _scaled_short if blocks.are_short else _scaled
    in_chunks(len(elements), lambda start, stop: scaled(words, sizes, size, edges, elements, sign, start, stop))


@kernel
def _correct(vector: Array, residual: Array, divisor: float, decay: float) -> None:
    number = vector.dtype.type
    n, share = number(divisor), number(decay)
    for i in range(vector.size):
        vector[i] = vector[i] / n + share * residual[i]


@kernel
def _tiles(
    words: Words, vector: Array, residual: Any, momentum: Any, new_momentum: Any, factors: Any, by: Any,  # noqa: ANN401
    size: int, edges: Array, sums: Array, carried: Array, past_caches: bool, start: int, stop: int,
) -> None:  # fmt: skip
    """Correct the elements start .. stop - 1, write their signs, and add up their magnitudes.

    Args:
        words: The stream of signs, overwritten.
        vector: (d,) floats, overwritten where there is a residual.
        residual: (d,), or None.
        momentum: (d,), or None.
        new_momentum: (d,), overwritten, or None.
        factors: Of the momentum and of the residual.
        by: From `divisor_of`.
        size: The size of all blocks but the last; 0 where `edges` has them.
        edges: (blocks + 1,) int64, where blocks begin and end; empty where there is a size.
        sums: (blocks,) float64, 0; what the tile in which a block begins adds up for it.
        carried: (tiles,) float64, 0; what a tile adds up for a block that began before it.
        past_caches: Store the new momentum past the caches.
        start: First element, a multiple of TILE.
        stop: Index behind the last element, a multiple of TILE or d.
    """
    number = vector.dtype.type
    scalars = number(factors[0]), number(factors[1])
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        begin, end = edge_of(block, size, edges, vector.size), edge_of(block + 1, size, edges, vector.size)
        at, total = tile, 0.0
        while at < last:
            n = (min(end, last) - at) // 64
            until = at + 64 * n if n > 0 else min(at + 64, last)
            if until - at < 64:
                _few(words, vector, residual, momentum, new_momentum, scalars, by, at)
            elif past_caches:
                added = correct_run_past_caches(
                    words, vector, residual, momentum, new_momentum, at, max(n, 1), *scalars, by
                )
            else:
                added = correct_run(words, vector, residual, momentum, new_momentum, at, max(n, 1), *scalars, by)
            if n > 0 and added < BEYOND:
                total += added
            else:
                for i in range(at, until):
                    if i == end:
                        put_sum(sums, carried, block, tile, begin, total)
                        block, begin, total = block + 1, end, 0.0
                        end = edge_of(block + 1, size, edges, vector.size)
                    total += np.float64(abs(vector[i]))
            at = until
            if at == end:
                put_sum(sums, carried, block, tile, begin, total)
                block, begin, total = block + 1, end, 0.0
                end = edge_of(block + 1, size, edges, vector.size)
        if begin < last:
            put_sum(sums, carried, block, tile, begin, total)


@kernel
def put_sum(sums: Array, carried: Array, block: int, tile: int, begin: int, total: float) -> None:
    """Keep what a tile has added up for a block that begins at `begin`."""
    if begin < tile:
        carried[tile // TILE] = total
    else:
        sums[block] = total


@kernel
def _few(
    words: Words, vector: Array, residual: Any, momentum: Any, new_momentum: Any, scalars: Any, by: Any, at: int  # noqa: ANN401
) -> None:  # fmt: skip
    """Take a pass on the fewer than 64 elements from `at` on, through a buffer of 64."""
    n = vector.size - at
    buffer, word = np.zeros((4, 64), vector.dtype), np.zeros(1, np.uint64)
    buffer[0, :n] = vector[at:]
    if momentum is not None:
        buffer[1, :n], buffer[2, :n] = residual[at:], momentum[at:]
        correct_run(word, buffer[0], buffer[1], buffer[2], buffer[3], 0, 1, *scalars, by)
        new_momentum[at:] = buffer[3, :n]
        vector[at:] = buffer[0, :n]
    elif residual is not None:
        buffer[1, :n] = residual[at:]
        correct_run(word, buffer[0], buffer[1], None, None, 0, 1, *scalars, by)
        vector[at:] = buffer[0, :n]
    else:
        correct_run(word, buffer[0], None, None, None, 0, 1, *scalars, by)
    words[at >> 6] = word[0] & ((uint64(1) << uint64(n)) - uint64(1))


@kernel
def join_sums(size: int, edges: Array, count: int, sums: Array, carried: Array, means: Array) -> None:
    """Add to each block's sum what later tiles have added up for it, and write the means."""
    for tile in range(1, carried.size):
        block = block_at(tile * TILE, size, edges)
        if edge_of(block, size, edges, count) < tile * TILE:
            sums[block] += carried[tile]
    for block in range(sums.size):
        length = edge_of(block + 1, size, edges, count) - edge_of(block, size, edges, count)
        means[block] = sums[block] / np.float64(length)


@kernel
def _short_means(vector: Array, size: int, edges: Array, means: Array, start: int, stop: int) -> None:
    """Write the mean magnitudes of blocks start .. stop - 1."""
    if size > 0:
        short_means(vector, size, means, start, stop)
        return
    begin = edge_of(start, size, edges, vector.size)
    for block in range(start, stop):
        end, total = edge_of(block + 1, size, edges, vector.size), 0.0
        for i in range(begin, end):
            total += np.float64(abs(vector[i]))
        means[block] = total / np.float64(end - begin)
        begin = end


@kernel
def _scaled(
    words: Words, scales: Array, size: int, edges: Array, out: Array, sign: Any, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write or add the scales of elements start .. stop - 1 with their signs.

    Arguments as for `_tiles`, and sign: 1 to add, None to overwrite.
    """
    sizes = np.empty(64, out.dtype)
    at, block = start, block_at(start, size, edges)
    while at < stop:
        end = edge_of(block + 1, size, edges, out.size)
        n = (min(end, stop) - at) // 64
        if n > 0:
            scaled_run(words, out, scales[block], at, 0, n, sign)
            at += 64 * n
        else:  # a block ends among the next 64 elements, or the vector does
            last = min(at + 64, stop)
            until = block_at(last - 1, size, edges) + 1
            repeat(scales[block:until], block, size, edges, out.size, at, last, sizes)
            _scaled_each(words, sizes, out, at, last, sign)
            at, block = last, until - 1
        if at == edge_of(block + 1, size, edges, out.size):
            block += 1


@kernel
def _scaled_short(
    words: Words, scales: Array, size: int, edges: Array, out: Array, sign: Any, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Do the same for short blocks: a scale for each element of a tile, then all signs of it."""
    sizes = np.empty(_SHORT_TILE, out.dtype)
    block = block_at(start, size, edges)
    for tile in range(start, stop, _SHORT_TILE):
        last = min(tile + _SHORT_TILE, stop)
        until = block_at(last - 1, size, edges) + 1
        if size == 1:
            _scaled_each(words, scales[tile:last], out, tile, last, sign)
        else:
            repeat(scales[block:until], block, size, edges, out.size, tile, last, sizes)
            _scaled_each(words, sizes, out, tile, last, sign)
        block = until if edge_of(until, size, edges, out.size) == last else until - 1


@kernel
def _scaled_each(words: Words, sizes: Array, out: Array, at: int, last: int, sign: Any) -> None:  # noqa: ANN401
    """Write or add a scale of its own for each of the elements at .. last - 1, where `at` is a multiple of 64."""
    n = (last - at) // 64
    scaled_run(words, out, sizes, at, 0, n, sign)
    at += 64 * n
    if at < last:
        few, few_sizes, word = np.zeros(64, out.dtype), np.zeros(64, out.dtype), np.empty(1, np.uint64)
        few[: last - at], few_sizes[: last - at] = out[at:last], sizes[64 * n : 64 * n + last - at]
        word[0] = words[at >> 6]
        scaled_run(word, few, few_sizes, 0, 0, 1, sign)
        out[at:last] = few[: last - at]
