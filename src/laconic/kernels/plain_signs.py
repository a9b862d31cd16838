"""One bit an entry, for the entries that a keyed coin keeps, in ordinary torch.

Everywhere: coordinate i is kept iff hash32(i, key) < threshold, with threshold in 0 .. 2**32 (0 keeps nothing, 2**32
everything, without a hash). `first` is the number of a vector's first coordinate. `packed` (ceil(kept/8),) uint8 holds
the kept entries' signs in ascending order, lowest bit first: a set bit is value < 0, so that both zeros are +1; the
unused bits of the last byte are 0. Scalars are rounded to the vector's type, and nothing is fused or reordered.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels import plain
from laconic.kernels.plain_pieces import gather
from laconic.kernels.plain_sums import all_finite

ALL_KEPT = 1 << 32


def count_kept(first: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """How many of the coordinates first .. first+count-1 are kept. device: where to count."""
    if threshold in (0, ALL_KEPT):
        return count if threshold else 0
    return int(plain.keep_mask(first, count, key, threshold, device).sum())


def kept_bits(
    first: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """Which of those coordinates are kept, (ceil(count/8),) uint8, lowest bit first, and how many.

    For `put_signs` and `add_signs`, which would draw the coins again.
    """
    mask = _mask(first, torch.empty(count, dtype=torch.bool, device=device), key, threshold)
    mask = torch.ones(count, dtype=torch.bool, device=device) if mask is None else mask
    return plain.pack_bits(mask), int(mask.sum())


def pack_signs(values: Tensor, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """The signs of the kept entries of `values` (count,), any float type or int8: packed, and how many were kept."""
    negative = values < 0
    mask = _mask(first, negative, key, threshold)
    kept = negative if mask is None else negative[mask]
    return plain.pack_bits(kept), kept.numel()


def put_signs(packed: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """out (count,) = -1 or +1 where kept, 0 elsewhere. out: float32 or float64, contiguous. drawn: from `kept_bits`."""
    mask = _mask(first, out, key, threshold) if drawn is None else plain.unpack_bits(drawn, out.numel())
    kept = out.numel() if mask is None else int(mask.sum())
    out.copy_(plain.scatter_signs(plain.unpack_bits(packed, kept), mask, out.dtype))


def add_signs(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """total (count,) += -1 or +1 where kept, += 0 elsewhere. total: float32, float64 or int8, contiguous.

    drawn: from `kept_bits`.

    An int8 total wraps beyond 127 packets.
    """
    signs = torch.empty_like(total)
    put_signs(packed, first, key, threshold, signs, drawn)
    total.add_(signs)


def cut_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """The bits low .. high-1 of a packed stream as a packed stream: (ceil((high-low)/8),) uint8."""
    start = low // 8
    bits = plain.unpack_bits(packed[start : (high + 7) // 8], high - 8 * start) if high > low else packed[:0].bool()
    return plain.pack_bits(bits[low - 8 * start :])


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """The signs that most of n voters gave to each of `count` entries, ties +1: (ceil(count/8),) uint8.

    packed: n tensors, n >= 1, of the signs of all entries.
    """
    negatives = sum(plain.unpack_bits(voter, count).to(torch.int32) for voter in packed)
    assert isinstance(negatives, Tensor), "no voter"
    return plain.pack_bits(2 * negatives > len(packed))


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """new = mu momentum + (1 - mu) gradient, written over `gradient`; returns the packed signs of all its entries.

    gradient, momentum: (d,) float32 or float64, contiguous.
    """
    gradient.copy_(mu * momentum + (1 - mu) * gradient)
    return pack_signs(gradient, 0, 0, ALL_KEPT)[0]


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
    """A worker's step with Nesterov momentum and error feedback, signs sent on a keyed mask, in one pass:

        new_momentum = mu momentum + gradient
        wish = (mu new_momentum + gradient) + decay debt
        new_debt = wish - c sign(wish) where kept, wish elsewhere

    gradient: in pieces, one behind the other, of any float type. All vectors are (d,) of one type, float32 or float64,
    the new ones contiguous; each may be the old one. Nothing is sent with threshold 0.
    Returns the packed signs of the kept entries of `wish`, how many were kept, which (as `kept_bits`; None where that
    was not written down), and whether no entry of `wish` is inf or NaN.
    """  # fmt: skip
    gradient = torch.empty_like(new_momentum)
    gather(pieces, gradient)
    new = mu * momentum + gradient
    wish = mu * new + gradient + decay * debt
    new_momentum.copy_(new)
    packed, kept = _owe(wish, new_debt, c, first, key, threshold)
    return packed, kept, None, all_finite(wish)


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
    """The server's step of the same methods, in one pass:

        wish = decay debt + scale (total / among)
        new_debt = wish - c sign(wish) where kept, wish elsewhere

    total: (count,) of debt's type, or int8 votes; the other vectors as for `owe_step`. Returns the packed signs, how
    many were kept, and which or None.
    """  # fmt: skip
    wish = decay * debt + scale * (total.to(debt.dtype) / among)
    return *_owe(wish, new_debt, c, first, key, threshold), None


def _owe(wish: Tensor, new_debt: Tensor, c: float, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    packed, kept = pack_signs(wish, first, key, threshold)
    signs = torch.empty_like(wish)
    put_signs(packed, first, key, threshold, signs)
    new_debt.copy_(wish - c * signs)
    return packed, kept


def _mask(first: int, like: Tensor, key: int, threshold: int) -> Tensor | None:
    """(count,) bool of what is kept; None when everything is."""
    if threshold == ALL_KEPT:
        return None
    if threshold == 0:
        return torch.zeros(like.numel(), dtype=torch.bool, device=like.device)
    return plain.keep_mask(first, like.numel(), key, threshold, like.device)
