"""The plain form of the pass of error feedback with scaled signs: arithmetic, then signs, then magnitudes."""

from typing import Any

import numpy as np
from numba import float64, uint8

from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.code_tiles import pack_tile
from laconic.kernels.cpu.residuals import TILE, put_sum

# ruff: noqa: ANN401 - numba's own arrays and scalars

_CHAINS = 16


def tiles(
    words: Any, vector: Any, residual: Any, momentum: Any, new_momentum: Any, factors: Any, by: Any, size: Any,
    edges: Any, sums: Any, carried: Any, past_caches: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `residuals._tiles`: the same elements and signs; magnitudes are added in another order."""
    number = vector.dtype.type
    mu, decay, none = number(factors[0]), number(factors[1]), number(0)
    below, packed, chains = np.zeros(TILE, np.uint8), words.view(np.uint8), np.empty(_CHAINS)
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
        for i in range(part.size):
            below[i] = uint8(part[i] < none)
        below[part.size :] = 0
        pack_tile(below, 1, packed[tile // 8 : (last + 7) // 8])
        at = tile
        while at < last:
            begin, end = edge_of(block, size, edges, vector.size), edge_of(block + 1, size, edges, vector.size)
            until = min(end, last)
            within = vector[at:until]
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
