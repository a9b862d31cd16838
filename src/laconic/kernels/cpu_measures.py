"""Least, largest and norm of every block of a vector in machine code; see `plain_quantized`.

Blocks are cut into pieces, each of which is measured on its own, so that the number of threads changes nothing.
"""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.compiled import kernel
from laconic.kernels.threads import in_chunks

Array = NDArray[Any]

FLOATS = {torch.float32: np.float32, torch.float64: np.float64}
_LANES = 32  # chains of additions at a time
_PIECE = 1 << 14  # entries


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """See plain_quantized."""
    keys, mask, pieces, firsts = _measured(values, lengths)
    lows, highs = np.empty((2, len(pieces) - 1), keys.dtype)
    in_chunks(len(pieces) - 1, lambda start, stop: _ranges(keys, pieces, mask, lows, highs, start, stop), keys.size)
    if len(firsts) < len(lows):
        lows, highs = np.minimum.reduceat(lows, firsts), np.maximum.reduceat(highs, firsts)
    low, high = (np.where(ends < 0, ends ^ mask, ends).view(FLOATS[values.dtype]) for ends in (lows, highs))
    return torch.from_numpy(low), torch.from_numpy(high)


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See plain_quantized."""
    return torch.from_numpy(_peaks(*_measured(values, lengths)).view(FLOATS[values.dtype]))


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See plain_quantized."""
    measured = _measured(values, lengths)
    keys, _, pieces, firsts = measured
    largest = _peaks(*measured).view(FLOATS[values.dtype])
    factors = np.ones(len(lengths))
    if values.dtype == torch.float64:  # whose squares might overflow or vanish; those of float32 are float64 here
        factors = np.ldexp(1.0, -np.clip(np.frexp(np.nan_to_num(largest))[1], -1000, 1000))
    sums = np.empty(len(pieces) - 1)
    floats = keys.view(FLOATS[values.dtype])
    in_chunks(
        len(sums), lambda start, stop: _squares(floats, pieces, firsts, factors, _LANES, sums, start, stop), keys.size
    )
    if len(firsts) < len(sums):
        sums = np.add.reduceat(sums, firsts)
    with np.errstate(over="ignore"):  # a norm may be more than a float holds: it is inf then
        found = (np.sqrt(sums) / factors).astype(largest.dtype)
    return torch.from_numpy(np.maximum(found, largest))


def _peaks(keys: Array, mask: Any, pieces: Array, firsts: Array) -> Array:  # noqa: ANN401 - a scalar of keys' type
    found = np.empty(len(pieces) - 1, keys.dtype)
    in_chunks(len(found), lambda start, stop: _piece_peaks(keys, pieces, mask, found, start, stop), keys.size)
    return np.maximum.reduceat(found, firsts) if len(firsts) < len(found) else found


def _measured(values: Tensor, lengths: tuple[int, ...]) -> tuple[Array, Any, Array, Array]:
    """The values' bits, all bits but the sign, the edges of pieces of blocks (n + 1,), and each block's first piece."""
    integer = np.int32 if values.dtype == torch.float32 else np.int64
    keys, mask = values.detach().contiguous().numpy().view(integer), integer(np.iinfo(integer).max)
    edges = block_edges(lengths)
    if max(lengths, default=0) <= _PIECE:
        return keys, mask, edges, np.arange(len(lengths))
    n_pieces = -(-np.diff(edges) // _PIECE)
    firsts = np.cumsum(n_pieces) - n_pieces
    within = np.arange(n_pieces.sum()) - np.repeat(firsts, n_pieces)
    return keys, mask, np.append(np.repeat(edges[:-1], n_pieces) + within * _PIECE, edges[-1]), firsts


@functools.lru_cache(maxsize=16)
def block_edges(lengths: tuple[int, ...]) -> Array:
    """Where each block begins, and where the last one ends: (blocks + 1,) int64, never written to."""
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges


@kernel
def _ranges(keys: Array, pieces: Array, mask: Any, lows: Array, highs: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Bits in the order of the floats: those below zero have all but their sign turned over."""
    zero = mask - mask
    for piece in range(start, stop):
        part = keys[pieces[piece] : pieces[piece + 1]]
        low, high = mask, ~mask
        for i in range(part.size):
            key = part[i] ^ (mask if part[i] < zero else zero)
            low = min(low, key)
            high = max(high, key)
        lows[piece], highs[piece] = low, high


@kernel
def _piece_peaks(keys: Array, pieces: Array, mask: Any, found: Array, start: int, stop: int) -> None:  # noqa: ANN401
    for piece in range(start, stop):
        part = keys[pieces[piece] : pieces[piece + 1]]
        largest = mask - mask
        for i in range(part.size):
            largest = max(largest, part[i] & mask)
        found[piece] = largest


@kernel
def _squares(
    values: Array, pieces: Array, firsts: Array, factors: Array, n_lanes: int, found: Array, start: int, stop: int
) -> None:
    """Of each piece the sum of (value * its block's factor)**2, entry i in lane i mod n_lanes."""
    lanes = np.empty(n_lanes)
    block = np.searchsorted(firsts, start, side="right") - 1
    for piece in range(start, stop):
        if block + 1 < firsts.size and firsts[block + 1] == piece:
            block += 1
        part = values[pieces[piece] : pieces[piece + 1]]
        factor = factors[block]
        lanes[:] = 0.0
        whole = part.size // lanes.size * lanes.size
        for at in range(0, whole, lanes.size):
            here = part[at : at + lanes.size]
            for lane in range(lanes.size):
                value = np.float64(here[lane]) * factor
                lanes[lane] += value * value
        for i in range(whole, part.size):
            value = np.float64(part[i]) * factor
            lanes[i - whole] += value * value
        total = 0.0
        for lane in range(lanes.size):
            total += lanes[lane]
        found[piece] = total
