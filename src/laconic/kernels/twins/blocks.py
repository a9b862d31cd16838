"""Plain forms of kernels whose LLVM loops run over more than 64 elements: reductions, quantizers, levels.

Each has the arguments of the kernel that it stands for.
"""

from typing import Any

import numpy as np
from numba import float64, int32, uint8, uint32

from laconic.kernels.cpu.block_edges import block_at, edge_of
from laconic.kernels.cpu.code_tiles import TILE, pack_tile
from laconic.kernels.cpu.grid_points import factor_of
from laconic.kernels.cpu.hashing import hash32
from laconic.kernels.cpu.llvm.level_sums import ROWS, SPAN
from laconic.kernels.cpu.llvm.reductions import LANES, RUN
from laconic.kernels.cpu.threads import CHUNK
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS

# ruff: noqa: ANN401 - numba's own arrays and scalars

_BOUNDS = 7


def squares(
    values: Any, keys: Any, mask: Any, size: Any, edges: Any, firsts: Any, factors: Any, sums: Any,
    absolute_maxima: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `block_norms._squares`."""
    block = np.searchsorted(firsts, start, side="right") - 1 if firsts.size else start - 1
    chains = np.empty(RUN)
    for segment in range(start, stop):
        if firsts.size == 0 or (block + 1 < firsts.size and firsts[block + 1] == segment):
            block += 1
        begin, end = edge_of(segment, size, edges, keys.size), edge_of(segment + 1, size, edges, keys.size)
        part, bits, factor = values[begin:end], keys[begin:end], factors[block]
        full = part.size // RUN * RUN
        chains[:] = 0.0
        for place in range(0, full, RUN):
            run = part[place : place + RUN]
            for i in range(RUN):
                value = float64(run[i] * factor)
                chains[i] += value * value
        total = 0.0
        for i in range(LANES):
            total += (chains[i] + chains[LANES + i]) + (chains[2 * LANES + i] + chains[3 * LANES + i])
        for i in range(full, part.size):
            value = float64(part[i]) * factor
            total += value * value
        largest = mask - mask
        for i in range(bits.size):
            largest = max(largest, bits[i] & mask)
        sums[segment], absolute_maxima[segment] = total, largest


def quantize(
    values: Any, lows: Any, highs: Any, size: Any, edges: Any, numbers: Any, bits: Any, minus: Any, offset: Any,
    low_key: Any, high_key: Any, codes: Any, packed: Any, start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `stochastic_rounding.quantize_blocks`."""
    top, none = numbers[0], numbers[1]
    block = block_at(start, size, edges)
    for tile in range(start, stop, TILE):
        end = min(tile + TILE, stop)
        at = tile
        while at < end:
            if edge_of(block + 1, size, edges, values.size) <= at:
                block += 1
            low, high = lows[block], highs[block]
            factor = factor_of(low, high, numbers)
            bottom = low * factor
            raised, span = none - bottom, high * factor - bottom
            step = top / span
            if span * step < top:
                step = step * numbers[6]
            until = min(end, edge_of(block + 1, size, edges, values.size))
            part, made = values[at:until], codes[at - tile : until - tile]
            coordinate = uint32(offset + at)
            for i in range(part.size):
                value = part[i] * factor
                magnitude = -value if (minus != uint32(0)) & (value < none) else value
                place = (magnitude + raised) * step
                place = place if place > none else none
                place = place if place < top else top
                sampled = uint32(
                    hash32(uint32(coordinate + uint32(i)), low_key, high_key) >> uint32(32 - FRACTION_BITS)
                )
                level = uint32(uint32(uint32(int32(place)) + sampled) >> uint32(FRACTION_BITS))
                made[i] = level | (minus if (value < none) & (level != uint32(0)) else uint32(0))
            at = until
        codes[end - tile :] = 0
        pack_tile(codes, bits, packed[tile * bits // 8 : (end * bits + 7) // 8])


def spans(keys: Any, mask: Any, lows: Any, highs: Any, ends: Any, start: Any, stop: Any) -> None:
    """See `fractional._spans`."""
    for chunk in range(start, stop, CHUNK):
        part = keys[chunk : min(chunk + CHUNK, stop)]
        smallest, largest = mask, mask - mask
        for place in range(0, part.size, SPAN):
            group = part[place : place + SPAN]
            low, high = mask, mask - mask
            for i in range(group.size):
                key = group[i] & mask
                low, high = min(low, key), max(high, key)
                smallest = min(smallest, (key - 1) & mask)
            largest = max(largest, high)
            if group.size == SPAN:
                lows[(chunk + place) // SPAN], highs[(chunk + place) // SPAN] = low, high
        ends[chunk // CHUNK, 0], ends[chunk // CHUNK, 1] = largest, smallest


def level_chunks(
    values: Any, bounds: Any, lows: Any, highs: Any, minus: Any, bits: Any, packed: Any, sums: Any, counts: Any,
    start: Any, stop: Any,
) -> None:  # fmt: skip
    """See `fractional._level_chunks`: the same codes; sums are added in another order."""
    codes, zero = np.zeros(TILE, np.uint8), values.dtype.type(0)
    lane_sums, lane_counts = np.empty((LANES, ROWS)), np.empty((LANES, ROWS), np.int64)
    for chunk in range(start, stop, CHUNK):
        number = chunk // CHUNK
        lane_sums[:], lane_counts[:] = 0.0, 0
        for tile in range(chunk, min(chunk + CHUNK, stop), TILE):
            part = values[tile : min(tile + TILE, chunk + CHUNK, stop)]
            for i in range(part.size):
                magnitude = abs(part[i])
                level: Any = uint8(0)
                for j in range(_BOUNDS):
                    level = uint8(level + uint8(magnitude <= bounds[j]))
                codes[i] = level
            for i in range(part.size):
                lane, level = i & (LANES - 1), codes[i]
                lane_sums[lane, level] += float64(abs(part[i]))
                lane_counts[lane, level] += 1
            for i in range(part.size):
                codes[i] = uint8(uint32(codes[i]) | (minus if part[i] < zero else uint32(0)))
            codes[part.size :] = 0
            pack_tile(codes, bits, packed[tile * bits // 8 : ((tile + part.size) * bits + 7) // 8])
        for level in range(ROWS):
            for lane in range(LANES):
                sums[number, level] += lane_sums[lane, level]
                counts[number, level] += lane_counts[lane, level]
