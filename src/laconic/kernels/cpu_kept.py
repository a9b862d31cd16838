"""`plain_kept` in machine code: bit for bit the same, 64 entries at a time."""

from typing import Any

import numpy as np
import torch
from numba import int64, uint64
from torch import Tensor

from laconic.kernels import plain_kept
from laconic.kernels.compiled import kernel
from laconic.kernels.cpu_streams import Array, Coin, coin_from, mask_at, ones, padded, placed
from laconic.kernels.cpu_words import Words, head
from laconic.kernels.plain import key_halves
from laconic.kernels.rooms import ROOMS
from laconic.kernels.threads import is_split

_FLOATS = (torch.float32, torch.float64)
_NONE_DRAWN = np.empty(0, np.uint64)


def take_kept(values: Tensor, share: float, first: int, key: int, threshold: int) -> Tensor:
    """See plain_kept."""
    if values.dtype not in _FLOATS:
        return plain_kept.take_kept(values, share, first, key, threshold)
    given, coin = values.detach().contiguous().numpy(), (first, *key_halves(key), threshold)
    room = ROOMS.lend(given.itemsize * max(1, len(given)))  # what nothing is written to takes no memory
    kept = room.view(values.dtype)
    out, divisor = kept.numpy(), given.dtype.type(share)
    ends: list[int] = []

    def use(start: int, stop: int, n: int, drawn: Words) -> None:
        last = len(out) if not is_split(len(given)) else n + _n_kept(stop - start, drawn, coin)
        ends.append(n + int(_take(given[start:stop], divisor, coin_from(coin, start), drawn, out[n:last])))

    placed(len(given), coin, _NONE_DRAWN, use)
    return kept[: max(ends)]


def _n_kept(count: int, drawn: Words, coin: Coin) -> int:
    """Of the entries that `drawn` begins with."""
    if not drawn.size:  # all are
        return count
    rest = int(drawn[count // 64]) & ((1 << count % 64) - 1) if count % 64 else 0
    return int(ones(drawn, 0, count // 64)) + rest.bit_count()


def put_kept(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """See plain_kept."""
    if not _write(kept, first, key, threshold, out, drawn, add=False):
        plain_kept.put_kept(kept, first, key, threshold, out, drawn)


def add_kept(kept: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """See plain_kept."""
    if not _write(kept, first, key, threshold, total, drawn, add=True):
        plain_kept.add_kept(kept, first, key, threshold, total, drawn)


def _write(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None, *, add: bool) -> bool:
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
    """Into `out`, which may be longer than needed. Returns how many."""
    room = np.empty(64, values.dtype)
    n, one, most = uint64(0), uint64(1), uint64(out.size)  # unsigned, so that no index is looked at for its sign
    for place in range(0, values.size, 64):
        part = values[place : place + 64]
        mask = drawn[place >> 6] if drawn.size else mask_at(coin, place)
        if part.size < 64:
            mask &= head(part.size)
        for i in range(part.size):
            room[i] = part[i] / share
        if n + uint64(64) <= most:  # an entry that is not kept is overwritten by the next one that is
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
    """The values from number `start` on, where the coin keeps."""
    room, choice = np.empty(64, out.dtype), np.zeros(2, out.dtype)  # a choice by index costs less than a jump
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
