"""Least, largest and norm of every block of a vector in machine code; see `plain_quantized`.

Blocks are cut into pieces, each of which is measured on its own, so that the number of threads changes nothing.
"""

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
    keys, pieces, owners = _measured(values, lengths)
    lows = np.full(len(lengths), np.iinfo(keys.dtype).max, keys.dtype)
    highs = np.full(len(lengths), np.iinfo(keys.dtype).min, keys.dtype)
    low_parts, high_parts = np.empty(len(pieces) - 1, keys.dtype), np.empty(len(pieces) - 1, keys.dtype)
    mask = keys.dtype.type(np.iinfo(keys.dtype).max)
    in_chunks(
        len(pieces) - 1, lambda start, stop: _ranges(keys, pieces, mask, low_parts, high_parts, start, stop), keys.size
    )
    np.minimum.at(lows, owners, low_parts)
    np.maximum.at(highs, owners, high_parts)
    made = (np.where(each < 0, each ^ mask, each).view(FLOATS[values.dtype]) for each in (lows, highs))
    low, high = (torch.from_numpy(each) for each in made)
    return low, high


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See plain_quantized."""
    keys, pieces, owners = _measured(values, lengths)
    mask = keys.dtype.type(np.iinfo(keys.dtype).max)
    parts = np.empty(len(pieces) - 1, keys.dtype)
    in_chunks(len(pieces) - 1, lambda start, stop: _peaks(keys, pieces, mask, parts, start, stop), keys.size)
    found = np.zeros(len(lengths), keys.dtype)
    np.maximum.at(found, owners, parts)
    return torch.from_numpy(found.view(FLOATS[values.dtype]))


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See plain_quantized."""
    largest = peaks(values, lengths)
    keys, pieces, owners = _measured(values, lengths)
    exponents = np.zeros(len(lengths), np.int64)
    if values.dtype == torch.float64:  # whose squares might overflow or vanish; those of float32 are float64 here
        exponents = np.clip(np.frexp(np.nan_to_num(largest.numpy()))[1].astype(np.int64), -1000, 1000)
    parts = np.empty(len(pieces) - 1)
    floats = keys.view(FLOATS[values.dtype])
    factors = np.ldexp(1.0, -exponents)
    in_chunks(
        len(pieces) - 1,
        lambda start, stop: _squares(floats, pieces, factors, owners, np.zeros(_LANES), parts, start, stop), keys.size,
    )  # fmt: skip
    sums = np.zeros(len(lengths))
    np.add.at(sums, owners, parts)
    with np.errstate(over="ignore"):  # a norm may be more than a float64 holds: it is inf then
        found = np.ldexp(np.sqrt(sums), exponents)
    return torch.from_numpy(found).to(values.dtype).maximum(largest)


def _measured(values: Tensor, lengths: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The values' bits, the edges of pieces of blocks (n + 1,), and the blocks that the pieces are of (n,)."""
    keys = values.detach().contiguous().numpy().view(np.int32 if values.dtype == torch.float32 else np.int64)
    edges = block_edges(lengths)
    if max(lengths) <= _PIECE:
        return keys, edges, np.arange(len(lengths))
    n_pieces = -(-np.diff(edges) // _PIECE)
    owners = np.repeat(np.arange(len(lengths)), n_pieces)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    return keys, np.append(edges[owners] + within * _PIECE, edges[-1]), owners


def block_edges(lengths: tuple[int, ...]) -> Array:
    """Where each block begins, and where the last one ends: (blocks + 1,) int64."""
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
def _peaks(keys: Array, pieces: Array, mask: Any, found: Array, start: int, stop: int) -> None:  # noqa: ANN401
    for piece in range(start, stop):
        part = keys[pieces[piece] : pieces[piece + 1]]
        largest = mask - mask
        for i in range(part.size):
            largest = max(largest, part[i] & mask)
        found[piece] = largest


@kernel
def _squares(
    values: Array, pieces: Array, factors: Array, owners: Array, lanes: Array, found: Array, start: int, stop: int
) -> None:
    for piece in range(start, stop):
        part = values[pieces[piece] : pieces[piece + 1]]
        factor = factors[owners[piece]]
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
