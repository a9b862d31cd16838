"""Signs on a keyed mask, compiled: the same bits, by the same operations in the same order.

Reference: `reference/signs.py`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from laconic.kernels.cpu import error_feedback as cpu_error_feedback
from laconic.kernels.cpu.flatten import are_plain, places_of
from laconic.kernels.cpu.llvm.vectors import Words
from laconic.kernels.cpu.mask_streams import (
    Array,
    Coin,
    add,
    coin_from,
    copy_bits,
    count_coins,
    cut_to,
    drawn_by,
    joined,
    momentum_pack,
    pack,
    padded,
    placed,
    put,
    room_for,
    vote,
    words_of,
)
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference import flatten as reference_flatten
from laconic.kernels.reference import signs as reference_signs
from laconic.kernels.reference.flatten import cut_pieces
from laconic.kernels.reference.hashing import key_halves


def count_kept(first: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """See `reference.signs.count_selected`."""
    coin = _coin(first, key, threshold)
    counts: list[int] = []
    in_chunks(count, lambda start, stop: counts.append(int(count_coins(stop - start, coin_from(coin, start)))))
    return sum(counts)


def kept_bits(
    first: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """See `reference.signs.selected_bits`."""
    stream = room_for(count)
    counts = drawn_by(count, _coin(first, key, threshold), words_of(stream))
    return cut_to(stream, count), sum(counts.values())


def pack_signs(values: Tensor, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """See `reference.signs.pack_signs`."""
    if values.dtype not in (torch.float32, torch.float64, torch.int8):
        values = values.float()
    entries, coin = _array(values), _coin(first, key, threshold)
    return joined(len(entries), lambda start, stop, words: pack(entries[start:stop], coin_from(coin, start), words))


def put_signs(packed: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """See `reference.signs.put_signs`."""
    if out.dtype == torch.bfloat16:  # which numpy has not
        reference_signs.put_signs(packed, first, key, threshold, out, drawn)
        return
    signs, entries, coin = padded(packed, out.numel()), _own(out), _coin(first, key, threshold)

    def use(start: int, stop: int, n: int, coins: Words) -> None:
        put(signs, n, coin_from(coin, start), coins, entries[start:stop])

    placed(len(entries), coin, _drawn(drawn, out), use)


def add_signs(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """See `reference.signs.add_signs`."""
    if total.dtype == torch.bfloat16:  # which numpy has not
        reference_signs.add_signs(packed, first, key, threshold, total, drawn)
        return
    signs, entries, coin = padded(packed, total.numel()), _own(total), _coin(first, key, threshold)

    def use(start: int, stop: int, n: int, coins: Words) -> None:
        add(signs, n, coin_from(coin, start), coins, entries[start:stop])

    placed(len(entries), coin, _drawn(drawn, total), use)


def cut_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """See `reference.signs.slice_bits`."""
    start = low // 8
    part = packed[start : (high + 7) // 8]
    n = max(0, high - low)
    stream = room_for(n)
    words = words_of(stream)
    words[0] = 0
    copy_bits(padded(part, 8 * len(part)), low - 8 * start, n, words, 0)
    return cut_to(stream, n)


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """See `reference.signs.majority`."""
    voters = np.zeros((len(packed), count // 64 + 2), np.uint64)
    for row, voter in zip(voters.view(np.uint8), packed, strict=True):
        row[: voter.numel()] = voter.numpy()
    stream = room_for(count)
    words = words_of(stream)
    in_chunks(count, lambda start, stop: vote(voters, start // 64, (stop + 63) // 64, words))
    return cut_to(stream, count)


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """See `reference.signs.momentum_signs`."""
    new, old = _own(gradient), _array(momentum)

    def write(start: int, stop: int, words: Words) -> int:
        return momentum_pack(new[start:stop], old[start:stop], mu, 1 - mu, words)

    return joined(len(new), write)[0]


def owe_step(
    pieces: Sequence[Tensor],
    momentum: Tensor,
    debt: Tensor,
    new_momentum: Tensor,
    new_debt: Tensor,
    *,
    mu: float,
    decay: float,
    c: float,
    first: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:
    """See `reference.signs.error_feedback_step`."""
    if not are_plain(pieces, new_debt):
        gathered = torch.empty_like(new_debt)
        reference_flatten.gather(pieces, gathered)
        pieces = [gathered]
    old, before, moved, after = _array(momentum), _array(debt), _own(new_momentum), _own(new_debt)
    coin, past_caches = _coin(first, key, threshold), _is_aligned(new_momentum) and _is_aligned(new_debt)
    drawn, fine = _Drawn(len(after)), []

    def write(start: int, stop: int, words: Words) -> int:
        within = pieces if stop - start == len(after) else cut_pieces(pieces, start, stop)
        coins = drawn.room(start, stop)
        n, is_finite = cpu_error_feedback.owe_step(
            *places_of(within), old[start:stop], before[start:stop], moved[start:stop], after[start:stop], mu, decay, c,
            coin_from(coin, start), past_caches, words, coins,
        )  # fmt: skip
        drawn.put(start, stop, coins)
        fine.append(is_finite)
        return n

    packed, kept = joined(len(after), write)
    return packed, kept, drawn.stream, all(fine)


def owe_total(
    total: Tensor,
    debt: Tensor,
    new_debt: Tensor,
    *,
    among: int,
    scale: float,
    decay: float,
    c: float,
    first: int,
    key: int,
    threshold: int,
) -> tuple[Tensor, int, Tensor | None]:
    """See `reference.signs.error_feedback_total`."""
    votes, before, after = _array(total), _array(debt), _own(new_debt)
    coin, past_caches = _coin(first, key, threshold), _is_aligned(new_debt)
    drawn = _Drawn(len(after))

    def write(start: int, stop: int, words: Words) -> int:
        return cpu_error_feedback.owe_total(
            votes[start:stop], before[start:stop], after[start:stop], float(among), scale, decay, c,
            coin_from(coin, start), past_caches, words, drawn.words[start // 64 :],
        )  # fmt: skip

    packed, kept = joined(len(votes), write)
    return packed, kept, drawn.stream


class _Drawn:
    """The mask as bits, written range by range."""

    def __init__(self, count: int) -> None:
        room = room_for(count)
        self.words = words_of(room)
        self.stream = cut_to(room, count)
        self._count = count

    def room(self, start: int, stop: int) -> Words:
        """Return a buffer to which `append` may write a range's bits, and the word behind them."""
        return self.words if stop - start == self._count else words_of(room_for(stop - start))

    def put(self, start: int, stop: int, words: Words) -> None:
        """Copy a range's bits to where they belong. `start` is a multiple of 64."""
        if words is not self.words:
            self.words[start // 64 : (stop + 63) // 64] = words[: (stop - start + 63) // 64]


def _coin(first: int, key: int, threshold: int) -> Coin:
    """Return the first coordinate, the two halves of the mixed key, and the threshold."""
    low, high = key_halves(key)
    return first, low, high, threshold


def _array(values: Tensor) -> Array:
    """Return an array to read from."""
    return values.detach().contiguous().numpy()


def _own(values: Tensor) -> Array:
    """Return an array to write to."""
    assert values.is_contiguous()
    return values.detach().numpy()


def _is_aligned(values: Tensor) -> bool:
    """Return whether a vector may be stored past the caches."""
    return values.data_ptr() % 64 == 0


def _drawn(drawn: Tensor | None, like: Tensor) -> Words:
    """Return the mask as words; none where it is still to be sampled."""
    return np.empty(0, np.uint64) if drawn is None else padded(drawn, like.numel())
