"""The fractional quantizer in machine code, one thread: one reading for the range, one for levels and means.

Bit for bit what `plain_fractional` gives: the same bounds, the same order of additions.
"""

from typing import Any

import numpy as np
import torch
from numba import float64, uint8, uint32, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.compiled import kernel
from laconic.kernels.plain_fractional import LANES, level_bounds, level_dtype

Array = NDArray[Any]

_TILE = 1024  # entries at a time, so that what is read twice is near; a multiple of LANES
_FEW = 8  # up to so many levels a magnitude is compared with every bound, above there is a search
_COUNTABLE = 128  # entries whose levels' counts fit the eight bytes of a word


def fractional_levels(values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(K,) -> levels (K,) uint8, or int16 above 9 bits, and means (2**(bits-1),) of values' type."""
    n_levels = 1 << (bits - 1)
    floats = values.detach().contiguous().numpy()
    largest, smallest = _range(floats)
    bounds = level_bounds(largest, smallest, bits, values.dtype).numpy()
    levels = torch.empty(len(values), dtype=level_dtype(bits))
    sums = np.zeros((n_levels, LANES))
    counts = np.zeros(n_levels, np.int64)
    if n_levels <= _FEW:
        filled = np.full(_FEW, -1, bounds.dtype)  # nothing is below -1
        filled[: len(bounds)] = bounds
        _compare(floats, filled, levels.numpy(), sums, counts)
    else:
        _search(floats, bounds, levels.numpy(), sums, counts)
    total = np.zeros(n_levels)
    for lane in range(LANES):
        total += sums[:, lane]
    return levels, torch.from_numpy(total / np.maximum(counts, 1)).to(values.dtype)


def _range(floats: Array) -> tuple[float, float]:
    """The largest and the smallest magnitude that is not zero; 0 and 0 where all are. NaN counts as the largest."""
    integer = np.int32 if floats.dtype == np.float32 else np.int64
    largest, less_one = _key_range(floats.view(integer), integer(np.iinfo(integer).max))
    if largest == 0:
        return 0.0, 0.0
    ends = np.array([largest, less_one + 1], integer).view(floats.dtype)
    return float(ends[0]), float(ends[1])


@kernel
def _key_range(keys: Array, mask: Any) -> tuple[int, int]:  # noqa: ANN401 - a scalar of keys' type
    """The largest magnitude as an integer, and the smallest one above 0, less 1 (which makes 0 the largest)."""
    largest = keys[0] & mask
    smallest = mask
    for i in range(keys.size):
        key = keys[i] & mask
        largest = max(largest, key)
        smallest = min(smallest, (key - 1) & mask)
    return largest, smallest


@kernel
def _add(tile: Array, levels: Array, sums: Array) -> None:
    """Each level's magnitudes, entry i in lane i mod LANES."""
    flat = sums.ravel()
    whole = tile.size // LANES * LANES
    for i in range(0, whole, LANES):
        here = tile[i : i + LANES]
        at = levels[i : i + LANES]
        for lane in range(LANES):
            flat[uint64(at[lane]) * uint64(LANES) + uint64(lane)] += float64(abs(here[lane]))
    for i in range(whole, tile.size):
        sums[levels[i], i - whole] += abs(tile[i])


@kernel
def _compare(values: Array, bounds: Array, levels: Array, sums: Array, counts: Array) -> None:
    """Levels by comparing with all eight bounds. Loops over one type each, which become vector instructions."""
    b0, b1, b2, b3, b4, b5, b6, b7 = bounds
    room = np.empty(_TILE, np.uint32)
    for start in range(0, values.size, _TILE):
        tile = values[start : start + _TILE]
        here = levels[start : start + _TILE]
        wide = room[: tile.size]
        for i in range(tile.size):
            m = abs(tile[i])
            low = uint32(m <= b0) + uint32(m <= b1) + uint32(m <= b2) + uint32(m <= b3)
            wide[i] = low + uint32(m <= b4) + uint32(m <= b5) + uint32(m <= b6) + uint32(m <= b7)
        for i in range(tile.size):
            here[i] = uint8(wide[i])
        _add(tile, wide, sums)
        for part in range(0, tile.size, _COUNTABLE):
            _count(wide[part : part + _COUNTABLE], counts)


@kernel
def _count(levels: Array, counts: Array) -> None:
    """How often each of up to eight levels is there: level l is counted in byte l of a word."""
    word = uint64(0)
    for i in range(levels.size):
        word += uint64(1) << (uint64(levels[i]) * uint64(8))
    for level in range(counts.size):
        counts[level] += np.int64(word >> uint64(8 * level) & uint64(255))


@kernel
def _search(values: Array, bounds: Array, levels: Array, sums: Array, counts: Array) -> None:
    """Levels by halving, a whole tile at each step: there is one bound less than a power of two."""
    room = np.empty(_TILE, np.uint32)
    for start in range(0, values.size, _TILE):
        tile = values[start : start + _TILE]
        here = levels[start : start + _TILE]
        wide = room[: tile.size]
        wide[:] = 0
        step = uint32((bounds.size + 1) // 2)
        while step > uint32(0):
            for i in range(tile.size):
                further = uint32(wide[i] + step)
                wide[i] = further if bounds[further - uint32(1)] >= abs(tile[i]) else wide[i]
            step = uint32(step >> uint32(1))
        for i in range(tile.size):
            here[i] = wide[i]
            counts[wide[i]] += 1
        _add(tile, wide, sums)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """(K,) int32 below 2**bits -> (ceil(bits K / 8),) uint8: `bits` bits each, lowest first, from the lowest up."""
    packed = torch.empty((bits * len(codes) + 7) // 8, dtype=torch.uint8)
    _pack(codes.contiguous().numpy(), bits, packed.numpy())
    return packed


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """The inverse of `pack_codes`: (ceil(bits k / 8),) uint8 -> (k,) int32."""
    assert len(packed) == (bits * k + 7) // 8, (len(packed), k, bits)
    codes = torch.empty(k, dtype=torch.int32)
    _unpack(packed.contiguous().numpy(), bits, codes.numpy())
    return codes


@kernel
def _pack(codes: NDArray[np.int32], bits: int, packed: NDArray[np.uint8]) -> None:
    pending = uint64(0)
    n_pending = uint64(0)
    at = 0
    for i in range(codes.size):
        pending |= uint64(codes[i]) << n_pending
        n_pending += uint64(bits)
        while n_pending >= uint64(8):
            packed[at] = uint8(pending)
            at += 1
            pending >>= uint64(8)
            n_pending -= uint64(8)
    if n_pending > uint64(0):
        packed[at] = uint8(pending)


@kernel
def _unpack(packed: NDArray[np.uint8], bits: int, codes: NDArray[np.int32]) -> None:
    pending = uint64(0)
    n_pending = uint64(0)
    at = 0
    below = (uint64(1) << uint64(bits)) - uint64(1)
    for i in range(codes.size):
        while n_pending < uint64(bits):
            pending |= uint64(packed[at]) << n_pending
            at += 1
            n_pending += uint64(8)
        codes[i] = np.int32(pending & below)
        pending >>= uint64(bits)
        n_pending -= uint64(bits)
