"""The fractional quantizer in machine code: one reading for the range, one for levels, means and packed codes.

The codes are those of `plain_fractional` to the bit. Means are added up in the values' own type within a tile, in
several chains, and in float64 from tile to tile.
"""

from typing import Any

import numpy as np
import torch
from numba import float64, int32, int64, uint8, uint16, uint32
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.compiled import kernel, sum_kernel
from laconic.kernels.cpu_codes import TILE, code_room, pack_tile, unpack_tile
from laconic.kernels.plain_fractional import level_bounds
from laconic.kernels.threads import CHUNK, in_chunks

Array = NDArray[Any]

_LANES = 8  # of a search: neighbours of one level are added to different numbers, so none waits for the other
_FEW = 8  # up to so many levels a magnitude is compared with each bound, above there is a search


def fractional_codes(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """See plain_fractional."""
    n_levels = 1 << (bits - 1)
    floats = values.detach().contiguous().numpy()
    bounds = level_bounds(*_range(floats), bits, values.dtype).numpy()
    packed = torch.empty((bits * floats.size + 7) // 8, dtype=torch.uint8)
    out = packed.numpy()
    if n_levels <= _FEW:
        filled = np.full(_FEW - 1, -1, bounds.dtype)  # nothing is below -1
        filled[: len(bounds)] = bounds
        n_chunks = -(-floats.size // CHUNK)  # each adds up on its own, whoever does it
        chunk_sums, chunk_counts = np.zeros((n_chunks, _FEW)), np.zeros((n_chunks, _FEW), np.int64)
        in_chunks(
            floats.size,
            lambda start, stop: _compare(floats, filled, bits, out, chunk_sums, chunk_counts, start, stop),
        )
        sums, counts = (each[0] if n_chunks == 1 else each.sum(0) for each in (chunk_sums, chunk_counts))
    else:
        lane_sums, lane_counts = np.zeros(n_levels * _LANES), np.zeros(n_levels * _LANES, np.int64)
        codes = code_room(bits)
        _search(floats, bounds, bits, codes, out, lane_sums, lane_counts)
        sums, counts = lane_sums.reshape(-1, _LANES).sum(1), lane_counts.reshape(-1, _LANES).sum(1)
    means = (sums[:n_levels] / np.maximum(counts[:n_levels], 1)).astype(floats.dtype)
    return packed, torch.from_numpy(means)


def fractional_dense(packed: Tensor, means: Tensor, count: int, bits: int) -> Tensor:
    """See plain_fractional."""
    dtype = torch.promote_types(means.dtype, torch.float32)  # numpy has no bfloat16
    dense = torch.empty(count, dtype=dtype)
    _write(packed, means.to(dtype), bits, dense, add=False)
    return dense.to(means.dtype)


def add_fractional(packed: Tensor, means: Tensor, count: int, bits: int, total: Tensor) -> None:
    """See plain_fractional."""
    floats = (torch.float32, torch.float64)
    if means.dtype in floats and total.dtype in floats and total.is_contiguous():
        _write(packed, means, bits, total, add=True)
    else:
        total.add_(fractional_dense(packed, means, count, bits))


def _write(packed: Tensor, means: Tensor, bits: int, total: Tensor, *, add: bool) -> None:
    data, out = packed.contiguous().numpy(), total.numpy()
    table = torch.cat([means, -means]).numpy()  # a code's highest bit is its sign

    def run(start: int, stop: int) -> None:
        codes = code_room(bits)
        _look_up(data, table, bits, codes, out, start, stop, add)

    in_chunks(total.numel(), run)


def _range(floats: Array) -> tuple[float, float]:
    """The largest and the smallest magnitude that is not zero; 0 and 0 where all are. NaN counts as the largest."""
    integer = np.int32 if floats.dtype == np.float32 else np.int64
    keys, mask = floats.view(integer), integer(np.iinfo(integer).max)
    ends = np.empty((-(-floats.size // CHUNK), 2), integer)
    in_chunks(floats.size, lambda start, stop: _key_ranges(keys, mask, ends, start, stop))
    largest, less_one = ends[0] if len(ends) == 1 else (ends[:, 0].max(), ends[:, 1].min())
    if largest == 0:
        return 0.0, 0.0
    found = np.array([largest, less_one + 1], integer).view(floats.dtype)
    return float(found[0]), float(found[1])


@kernel
def _key_ranges(keys: Array, mask: Any, ends: Array, start: int, stop: int) -> None:  # noqa: ANN401 - numba's scalars
    """Of each chunk the largest magnitude as an integer, and the smallest above 0, less 1 (0 becomes the largest)."""
    for chunk in range(start, stop, CHUNK):
        part = keys[chunk : min(chunk + CHUNK, stop)]
        largest, smallest = mask - mask, mask
        for i in range(part.size):
            key = part[i] & mask
            largest = max(largest, key)
            smallest = min(smallest, (key - 1) & mask)
        ends[chunk // CHUNK, 0] = largest
        ends[chunk // CHUNK, 1] = smallest


@kernel
def _compare(
    values: Array, bounds: Array, bits: int, packed: Array, sums: Array, counts: Array, start: int, stop: int
) -> None:
    """Codes, and each chunk's sums and counts (chunks, 8), by comparing with each of seven bounds."""
    levels = np.zeros(TILE, np.uint32)
    magnitudes = np.zeros(TILE, values.dtype)
    codes = np.zeros(TILE, np.uint8)
    minus = uint32(1 << (bits - 1))
    for tile in range(start, stop, TILE):
        end = min(tile + TILE, stop)
        part = values[tile:end]
        first, last = _levels(part, bounds, minus, levels, magnitudes, codes)
        chunk = tile // CHUNK
        for level in range(int64(first), int64(last) + 1):
            total, count = _level_sum(magnitudes[: part.size], levels[: part.size], uint32(level))
            sums[chunk, level] += total
            counts[chunk, level] += count
        codes[part.size :] = 0
        pack_tile(codes, bits, packed[tile * bits // 8 : (end * bits + 7) // 8])


@kernel
def _levels(
    part: Array, bounds: Array, minus: Any, levels: Array, magnitudes: Array, codes: Array  # noqa: ANN401
) -> tuple[Any, Any]:  # fmt: skip
    """Each entry's level, magnitude and code; the first and the last level that is there."""
    b0, b1, b2, b3, b4, b5, b6 = bounds
    first, last = uint32(_FEW - 1), uint32(0)
    zero = part.dtype.type(0)  # of the same type: else the comparison is one of float64
    for i in range(part.size):
        m = abs(part[i])
        low = uint32(uint32(m <= b0) + uint32(m <= b1) + uint32(m <= b2) + uint32(m <= b3))
        level = uint32(low + uint32(m <= b4) + uint32(m <= b5) + uint32(m <= b6))
        levels[i] = level
        magnitudes[i] = m
        first, last = min(first, level), max(last, level)
        codes[i] = uint8(level | (minus if part[i] < zero else uint32(0)))
    return first, last


@sum_kernel
def _level_sum(magnitudes: Array, levels: Array, level: Any) -> tuple[float, int]:  # noqa: ANN401
    total, count = magnitudes.dtype.type(0), int32(0)
    for i in range(magnitudes.size):
        here = levels[i] == level
        total += magnitudes[i] if here else magnitudes.dtype.type(0)
        count = int32(count + int32(here))
    return float(total), int(count)


@kernel
def _search(values: Array, bounds: Array, bits: int, codes: Array, packed: Array, sums: Array, counts: Array) -> None:
    """Codes by halving, a whole tile at each step: there is one bound less than a power of two."""
    levels = np.empty(TILE, np.uint32)
    minus, zero = uint32(1 << (bits - 1)), values.dtype.type(0)
    for start in range(0, values.size, TILE):
        tile = values[start : start + TILE]
        levels[:] = 0
        step = uint32((bounds.size + 1) // 2)
        while step > uint32(0):
            for i in range(tile.size):
                further = uint32(levels[i] + step)
                levels[i] = further if bounds[further - uint32(1)] >= abs(tile[i]) else levels[i]
            step = uint32(step >> uint32(1))
        for i in range(tile.size):
            codes[i] = uint16(levels[i] | (minus if tile[i] < zero else uint32(0)))
        for i in range(tile.size):
            place = uint32(uint32(levels[i] * uint32(_LANES)) + uint32(uint32(i) & uint32(_LANES - 1)))
            sums[place] += float64(abs(tile[i]))
            counts[place] += 1
        codes[tile.size :] = 0
        pack_tile(codes, bits, packed[start * bits // 8 : ((start + tile.size) * bits + 7) // 8])


@kernel
def _look_up(
    packed: Array,
    table: Array,
    bits: int,
    codes: Array,
    total: Array,
    start: int,
    stop: int,
    add: bool,
) -> None:
    for tile in range(start, stop, TILE):
        end = min(tile + TILE, stop)
        unpack_tile(packed[tile * bits // 8 : (end * bits + 7) // 8], bits, codes)
        out = total[tile:end]
        if add:
            for i in range(out.size):
                out[i] += table[codes[i]]
        else:
            for i in range(out.size):
                out[i] = table[codes[i]]


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """See plain_fractional."""
    packed = torch.empty((bits * len(codes) + 7) // 8, dtype=torch.uint8)
    room = code_room(bits)
    _pack(codes.contiguous().numpy(), bits, room, packed.numpy())
    return packed


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """See plain_fractional."""
    assert len(packed) == (bits * k + 7) // 8, (len(packed), k, bits)
    codes = torch.empty(k, dtype=torch.int32)
    room = code_room(bits)
    _unpack(packed.contiguous().numpy(), bits, room, codes.numpy())
    return codes


@kernel
def _pack(codes: Array, bits: int, room: Array, packed: Array) -> None:
    for tile in range(0, codes.size, TILE):
        part = codes[tile : tile + TILE]
        for i in range(part.size):
            room[i] = part[i]
        room[part.size :] = 0
        pack_tile(room, bits, packed[tile * bits // 8 : ((tile + part.size) * bits + 7) // 8])


@kernel
def _unpack(packed: Array, bits: int, room: Array, codes: Array) -> None:
    for tile in range(0, codes.size, TILE):
        part = codes[tile : tile + TILE]
        unpack_tile(packed[tile * bits // 8 : ((tile + part.size) * bits + 7) // 8], bits, room)
        for i in range(part.size):
            part[i] = room[i]
