"""Values of the elements that a mask selects, compiled, 64 at a time, the same bits.

Reference: `reference/selected_values.py`.
"""

from typing import Any

import numpy as np
import torch
from numba import int64, uint64
from torch import Tensor

from laconic.buffer_pool import ROOMS
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.vectors import Words, head
from laconic.kernels.cpu.mask_streams import Array, Coin, coin_from, mask_at, ones, padded, placed
from laconic.kernels.cpu.threads import is_split
from laconic.kernels.reference import selected_values as reference_selected_values
from laconic.kernels.reference.hashing import key_halves

_FLOATS = (torch.float32, torch.float64)
_NONE_DRAWN = np.empty(0, np.uint64)


def take_kept(values: Tensor, share: float, first: int, key: int, threshold: int) -> Tensor:
    """See `reference.selected_values.take_selected`."""
    if values.dtype not in _FLOATS:
        return reference_selected_values.take_kept(values, share, first, key, threshold)
    given, coin = values.detach().contiguous().numpy(), (first, *key_halves(key), threshold)
    room = ROOMS.lend(given.itemsize * max(1, len(given)))  # pages that are never written take no memory
    kept = room.view(values.dtype)
    out, divisor = kept.numpy(), given.dtype.type(share)
    ends: list[int] = []

    def use(start: int, stop: int, n: int, drawn: Words) -> None:
        last = len(out) if not is_split(len(given)) else n + _n_kept(stop - start, drawn, coin)
        ends.append(n + int(_take(given[start:stop], divisor, coin_from(coin, start), drawn, out[n:last])))

    placed(len(given), coin, _NONE_DRAWN, use)
    return kept[: max(ends)]


def _n_kept(count: int, drawn: Words, coin: Coin) -> int:
    """Return how many of the first `count` elements of a mask are selected; an empty mask selects all."""
    if not drawn.size:  # all are selected
        return count
    rest = int(drawn[count // 64]) & ((1 << count % 64) - 1) if count % 64 else 0
    return int(ones(drawn, 0, count // 64)) + rest.bit_count()


def put_kept(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """See `reference.selected_values.put_selected`."""
    if not _write(kept, first, key, threshold, out, drawn, add=False):
        reference_selected_values.put_kept(kept, first, key, threshold, out, drawn)


def add_kept(kept: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """See `reference.selected_values.add_selected`."""
    if not _write(kept, first, key, threshold, total, drawn, add=True):
        reference_selected_values.add_kept(kept, first, key, threshold, total, drawn)


def _write(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None, *, add: bool) -> bool:
    """Write or add the values. Returns False, and does nothing, for a type that numpy does not have."""
    if kept.dtype not in _FLOATS or out.dtype not in _FLOATS:  # numpy has no bfloat16
        return False
    assert out.is_contiguous()
    values, entries = kept.contiguous().numpy(), out.detach().numpy()
    coin = (first, *key_halves(key), threshold)

    def use(start: int, stop: int, n: int, coins: Words) -> None:
        _spread(values, n, coin_from(coin, start), coins, entries[start:stop], add)

    placed(len(entries), coin, _NONE_DRAWN if drawn is None else padded(drawn, len(entries)), use)
    return True


@kernel
def _take(values: Array, share: Any, coin: Coin, drawn: Words, out: Array) -> Any:  # noqa: ANN401
    """Write the selected values, divided.

    Args:
        values: (count,) floats.
        share: The divisor, of the values' type.
        bernoulli: The mask's coordinates, key and threshold.
        sampled: The mask as words, or empty to sample it here.
        out: Overwritten; may be longer than needed.

    Returns:
        How many were selected.
    """
    room = np.empty(64, values.dtype)
    n, one, most = uint64(0), uint64(1), uint64(out.size)  # unsigned: no index is checked for its sign
    for place in range(0, values.size, 64):
        part = values[place : place + 64]
        mask = drawn[place >> 6] if drawn.size else mask_at(coin, place)
        if part.size < 64:
            mask &= head(part.size)
        for i in range(part.size):
            room[i] = part[i] / share
        if n + uint64(64) <= most:  # an element that is not selected is overwritten by the next one that is
            for i in range(part.size):
                out[n] = room[i]
                n += mask & one
                mask >>= one
        else:
            for i in range(part.size):
                if mask & one:
                    out[n] = room[i]
                    n += one
                mask >>= one
    return int64(n)


@kernel
def _spread(kept: Array, start: int, coin: Coin, drawn: Words, out: Array, add: bool) -> None:
    """Write or add values at the selected elements.

    Args:
        selected: All values.
        start: How many of them belong to elements before `out`.
        bernoulli: The mask's coordinates, key and threshold.
        sampled: The mask as words, or empty to sample it here.
        out: (count,).
        add: Add to `out` instead of overwriting it.
    """
    room, choice = np.empty(64, out.dtype), np.zeros(2, out.dtype)  # selecting by index costs less than a branch
    n, one, most = uint64(start), uint64(1), uint64(kept.size)
    for place in range(0, out.size, 64):
        part = out[place : place + 64]
        mask = drawn[place >> 6] if drawn.size else mask_at(coin, place)
        if part.size < 64:
            mask &= head(part.size)
        if n + uint64(64) < most:
            for i in range(part.size):
                choice[1] = kept[n]
                room[i] = choice[mask & one]
                n += mask & one
                mask >>= one
        else:
            for i in range(part.size):
                room[i] = choice[0]
                if mask & one and n < most:
                    room[i] = kept[n]
                    n += one
                mask >>= one
        if add:
            for i in range(part.size):
                part[i] += room[i]
        else:
            for i in range(part.size):
                part[i] = room[i]
