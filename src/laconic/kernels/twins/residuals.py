"""The plain forms of the passes of error feedback with scaled signs: arithmetic, then signs, then magnitudes.

Each has the arguments of the kernel that it stands for.
"""

from typing import Any

import numpy as np
from numba import float64, uint8
from numba.np.numpy_support import carray

from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.code_tiles import pack_tile, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to
from laconic.kernels.cpu.residuals import TILE, put_sum

# ruff: noqa: ANN401 - numba's own arrays and scalars

_CHAINS = 16


def tiles(
    words: Any, vector: Any, residual: Any, momentum: Any, new_momentum: Any, factors: Any, by: Any, size: Any,
    edges: Any, sums: Any, carried: Any, past_caches: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `residuals._tiles`: the same elements and signs; magnitudes are added in another order."""
    number = vector.dtype.type
    mu, decay = number(factors[0]), number(factors[1])
    below, packed = np.zeros(TILE, np.uint8), words.view(np.uint8)
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        part = vector[tile:last]
        if momentum is not None:
            old, before, moved = momentum[tile:last], residual[tile:last], new_momentum[tile:last]
            for i in range(part.size):
                moved[i] = mu * old[i] + part[i]
                part[i] = (mu * moved[i] + part[i]) + decay * before[i]
        elif residual is not None:
            before = residual[tile:last]
            for i in range(part.size):  # it is measured without a divisor
                part[i] += decay * before[i]
        _pack(part, below, packed[tile // 8 : (last + 7) // 8])
        block = _add_up(part, block, size, edges, vector.size, sums, carried, tile)


def measure(
    words: Any, voters: Any, sizes: Any, residual: Any, numbers: Any, by: Any, size: Any, edges: Any, sums: Any,
    carried: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `scaled_answers._measure`: the same signs; magnitudes are added in another order."""
    below, packed, means = np.zeros(TILE, np.uint8), words.view(np.uint8), np.empty(TILE, residual.dtype)
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        part = means[: min(tile + TILE, stop) - tile]
        _corrected(voters, sizes, residual, numbers, size, edges, tile, part)
        _pack(part, below, packed[tile // 8 : (tile + part.size + 7) // 8])
        block = _add_up(part, block, size, edges, residual.size, sums, carried, tile)


def write_unsent(
    words: Any, voters: Any, sizes: Any, residual: Any, numbers: Any, by: Any, size: Any, edges: Any, means: Any,
    out: Any, past_caches: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `scaled_answers._write_unsent`."""
    none = numbers[0] - numbers[0]
    for tile in range(start, stop, TILE):
        last = min(tile + TILE, stop)
        _corrected(voters, sizes, residual, numbers, size, edges, tile, out[tile:last])
        at, block = tile, block_at(tile, size, edges)
        while at < last:
            until = min(edge_of(block + 1, size, edges, residual.size), last)
            part, sent = out[at:until], means[block]
            for i in range(part.size):
                part[i] = part[i] + sent if part[i] < none else part[i] - sent
            at, block = until, block + 1


@kernel
def _corrected(
    voters: Any, sizes: Any, residual: Any, numbers: Any, size: Any, edges: Any, tile: Any, out: Any
) -> None:  # fmt: skip
    """Write the corrected mean of the elements from `tile` on."""
    none, share, signs = numbers[0] - numbers[0], numbers[1], np.zeros(TILE, np.uint8)
    out[:] = none
    for voter in range(sizes.shape[1]):
        packed = carray(pointer_to(voters[voter]), ((residual.size + 7) // 8,), np.uint8)
        unpack_tile(packed[tile // 8 : (tile + out.size + 7) // 8], 1, signs)
        at, last, block = tile, tile + out.size, block_at(tile, size, edges)
        while at < last:
            until = min(edge_of(block + 1, size, edges, residual.size), last)
            part, own, bits = out[at - tile : until - tile], sizes[block, voter], signs[at - tile : until - tile]
            for i in range(part.size):
                part[i] += -own if bits[i] else own
            at, block = until, block + 1
    before = residual[tile : tile + out.size]
    for i in range(out.size):
        out[i] = out[i] / numbers[0] + share * before[i]


@kernel
def _pack(part: Any, below: Any, packed: Any) -> None:
    """Write the signs of a tile's elements."""
    none = part.dtype.type(0)
    for i in range(part.size):
        below[i] = uint8(part[i] < none)
    below[part.size :] = 0
    pack_tile(below, 1, packed)


@kernel
def _add_up(
    part: Any, block: Any, size: Any, edges: Any, count: Any, sums: Any, carried: Any, tile: Any
) -> Any:  # fmt: skip
    """Add up a tile's magnitudes, for its blocks from `block` on. Returns the block in which the next tile begins."""
    chains, at, last = np.empty(_CHAINS), tile, tile + part.size
    while at < last:
        begin, end = edge_of(block, size, edges, count), edge_of(block + 1, size, edges, count)
        until = min(end, last)
        within = part[at - tile : until - tile]
        full = within.size // _CHAINS * _CHAINS
        chains[:] = 0.0
        for place in range(0, full, _CHAINS):
            for i in range(_CHAINS):
                chains[i] += float64(abs(within[place + i]))
        total = chains.sum()
        for i in range(full, within.size):
            total += float64(abs(within[i]))
        put_sum(sums, carried, block, tile, begin, total)
        at = until
        if until == end:
            block += 1
    return block
