"""Signs on a keyed mask, on a GPU, the same bits. Reference: `reference/signs.py`.

Where a mask selects elements, a first kernel counts how many each block selects; their cumulative sum tells the next
kernel where its block's bits begin. A word at the edge of a block has bits of two blocks, so bits are set by atomic
ors. The host waits for the number of selected elements, and only where signs are packed.
"""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.gpu.hashing import hashed
from laconic.kernels.reference.hashing import key_halves
from laconic.kernels.reference.signs import ALL_KEPT

_BLOCK = 1024
_BYTES = 1024  # of a block, in kernels that write one byte an element


def count_kept(first: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """See `reference.signs.count_selected`."""
    if threshold in (0, ALL_KEPT):
        return count if threshold else 0
    return int(_kept_per_block(first, count, key, threshold, device).sum())


def kept_bits(
    first: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """See `reference.signs.selected_bits`."""
    drawn = torch.empty(blocks_of(count, 8), dtype=torch.uint8, device=device)
    launch(
        _draw, blocks_of(count, _BLOCK), drawn, count, first, *key_halves(key), threshold % ALL_KEPT,
        MASKED=threshold != ALL_KEPT, BLOCK=_BLOCK,
    )  # fmt: skip
    return drawn, count_kept(first, count, key, threshold, device)


def pack_signs(values: Tensor, first: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """See `reference.signs.pack_signs`."""
    count = values.numel()
    room = _Room(first, count, key, threshold, values.device)
    launch(_pack, room.n_blocks, values.contiguous(), count, *room.arguments, MASKED=room.masked, BLOCK=_BLOCK)
    return room.packed, room.kept


def put_signs(packed: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """See `reference.signs.put_signs`.

    `packed` may be in the host's memory. The mask is sampled again, which takes less time than reading it.
    """
    _unpack_into(packed, first, key, threshold, out, add=False)


def add_signs(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """See `reference.signs.add_signs`, and `put_signs`."""
    _unpack_into(packed, first, key, threshold, total, add=True)


def cut_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """See `reference.signs.slice_bits`."""
    n_bits = max(0, high - low)
    cut = torch.empty(blocks_of(n_bits, 8), dtype=torch.uint8, device=packed.device)
    launch(_cut, blocks_of(len(cut), _BYTES), packed.contiguous(), low, n_bits, cut, len(packed), BLOCK=_BYTES)
    return cut


def majority(packed: Sequence[Tensor], count: int) -> Tensor:
    """See `reference.signs.majority`."""
    voters = torch.stack(list(packed))
    winners = torch.empty(blocks_of(count, 8), dtype=torch.uint8, device=voters.device)
    launch(_majority, blocks_of(count, _BLOCK), voters, len(voters), voters.shape[1], count, winners, BLOCK=_BLOCK)
    return winners


def momentum_signs(gradient: Tensor, momentum: Tensor, *, mu: float) -> Tensor:
    """See `reference.signs.momentum_signs`."""
    count = gradient.numel()
    packed = torch.empty(blocks_of(count, 8), dtype=torch.uint8, device=gradient.device)
    launch(_momentum, blocks_of(count, _BLOCK), gradient, momentum, count, mu, 1 - mu, packed, BLOCK=_BLOCK)
    return packed


def owe_step(
    pieces: Sequence[Tensor], momentum: Tensor, debt: Tensor, new_momentum: Tensor, new_debt: Tensor,
    *, mu: float, decay: float, c: float, first: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:  # fmt: skip
    """See `reference.signs.error_feedback_step`."""
    gradient = torch.cat([piece.reshape(-1) for piece in pieces]).to(new_debt.dtype)
    count = gradient.numel()
    room = _Room(first, count, key, threshold, gradient.device)
    spoiled = torch.zeros(1, dtype=torch.int32, device=gradient.device)
    launch(
        _owe_step, room.n_blocks, gradient, momentum.contiguous(), debt.contiguous(), new_momentum, new_debt, spoiled,
        mu, decay, c, count, *room.arguments, MASKED=room.masked, BLOCK=_BLOCK,
    )  # fmt: skip
    return room.packed, room.kept, None, not bool(spoiled.item())


def owe_total(
    total: Tensor, debt: Tensor, new_debt: Tensor,
    *, among: int, scale: float, decay: float, c: float, first: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None]:  # fmt: skip
    """See `reference.signs.error_feedback_total`."""
    count = total.numel()
    room = _Room(first, count, key, threshold, total.device)
    launch(
        _owe_total, room.n_blocks, total, debt.contiguous(), new_debt, among, scale, decay, c, count, *room.arguments,
        MASKED=room.masked, BLOCK=_BLOCK,
    )  # fmt: skip
    return room.packed, room.kept, None


class _Room:
    """Buffers for the signs of selected elements: words of 0, and how many elements are selected before each block."""

    def __init__(self, first: int, count: int, key: int, threshold: int, device: torch.device) -> None:
        self.n_blocks = blocks_of(count, _BLOCK)
        self.masked = threshold != ALL_KEPT
        if self.masked:
            per_block = _kept_per_block(first, count, key, threshold, device)
            before = per_block.cumsum(0) - per_block
            self.kept = int(per_block.sum()) if threshold else 0
        else:
            before = torch.empty(0, dtype=torch.int64, device=device)
            self.kept = count
        words = torch.zeros(blocks_of(self.kept, 32), dtype=torch.int32, device=device)
        self.packed = words.view(torch.uint8)[: blocks_of(self.kept, 8)]
        target = words if self.masked else self.packed  # bits are set in words, or full bytes are written
        self.arguments = (first, *key_halves(key), threshold % ALL_KEPT, before, target)


def _kept_per_block(first: int, count: int, key: int, threshold: int, device: torch.device | None) -> Tensor:
    """Return how many elements of each block are selected: (blocks,) int64."""
    n_blocks = blocks_of(count, _BLOCK)
    per_block = torch.empty(n_blocks, dtype=torch.int64, device=device)
    launch(_count, n_blocks, per_block, count, first, *key_halves(key), threshold, BLOCK=_BLOCK)
    return per_block


def _unpack_into(packed: Tensor, first: int, key: int, threshold: int, total: Tensor, *, add: bool) -> None:
    """Write or add the signs at the selected elements of `total`."""
    count = total.numel()
    masked = threshold != ALL_KEPT
    before = packed
    if masked:
        per_block = _kept_per_block(first, count, key, threshold, total.device)
        before = per_block.cumsum(0) - per_block
    launch(
        _unpack, blocks_of(count, _BLOCK), total, packed.to(total.device).contiguous(), count, first,
        *key_halves(key), threshold % ALL_KEPT, before, MASKED=masked, ADD=add, BLOCK=_BLOCK,
    )  # fmt: skip


@kernel
def _kept_at(
    at: tl.tensor, count: tl.tensor, first: tl.tensor, low_key: tl.tensor, high_key: tl.tensor, threshold: tl.tensor,
    MASKED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return which elements `at` (n,) are selected; none behind the last one."""
    kept = at < count
    if MASKED:
        kept = kept & (hashed(first + at, low_key, high_key).to(tl.int64) < threshold)
    return kept


@kernel
def _write_signs(
    negative: tl.tensor, kept: tl.tensor, before: tl.tensor, packed: tl.tensor, count: tl.tensor,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Write the bits of this block's selected elements."""
    block = tl.program_id(0).to(tl.int64)
    if MASKED:
        rank = tl.load(before + block) + tl.cumsum(kept.to(tl.int32), 0) - 1
        bits = (kept & negative).to(tl.int32) << (rank & 31).to(tl.int32)
        tl.atomic_or(packed + (rank >> 5), bits, mask=kept & negative)
    else:
        _write_bytes(kept & negative, packed, count, BLOCK)


@kernel
def _write_bytes(negative: tl.tensor, packed: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr) -> None:
    """Write one bit for each element of this block."""
    bits = tl.reshape(negative.to(tl.int32), [BLOCK // 8, 8]) << tl.arange(0, 8)[None, :]
    at = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    tl.store(packed + at, tl.sum(bits, 1).to(tl.uint8), mask=8 * at < count)


@kernel
def _owe(
    wish: tl.tensor, new_debt: tl.tensor, c: tl.tensor, at: tl.tensor, count: tl.tensor,
    first: tl.tensor, low_key: tl.tensor, high_key: tl.tensor, threshold: tl.tensor,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Write the signs of the selected elements, and what they leave of the corrected values as the new residual."""
    kept = _kept_at(at, count, first, low_key, high_key, threshold, MASKED)
    negative = wish < 0
    sent = tl.full([1], c, wish.dtype)
    sent = tl.where(kept, tl.where(negative, -sent, sent), tl.zeros([1], wish.dtype))
    tl.store(new_debt + at, wish - sent, mask=at < count)
    _write_signs(negative, kept, before, packed, count, MASKED, BLOCK)


@kernel
def _count(
    per_block: tl.tensor, count: tl.int64, first: tl.int64, low_key: tl.int64, high_key: tl.int64,
    threshold: tl.int64, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    kept = _kept_at(block * BLOCK + tl.arange(0, BLOCK), count, first, low_key, high_key, threshold, True)
    tl.store(per_block + block, tl.sum(kept.to(tl.int64), 0))


@kernel
def _draw(
    drawn: tl.tensor, count: tl.int64, first: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    _write_bytes(_kept_at(at, count, first, low_key, high_key, threshold, MASKED), drawn, count, BLOCK)


@kernel
def _pack(
    values: tl.tensor, count: tl.int64, first: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values + at, mask=at < count, other=0)
    if value.dtype == tl.bfloat16:
        value = value.to(tl.float32)
    kept = _kept_at(at, count, first, low_key, high_key, threshold, MASKED)
    _write_signs(value < 0, kept, before, packed, count, MASKED, BLOCK)


@kernel
def _unpack(
    total: tl.tensor, packed: tl.tensor, count: tl.int64, first: tl.int64, low_key: tl.int64, high_key: tl.int64,
    threshold: tl.int64, before: tl.tensor, MASKED: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    kept = _kept_at(at, count, first, low_key, high_key, threshold, MASKED)
    rank = at
    if MASKED:
        rank = tl.load(before + block) + tl.cumsum(kept.to(tl.int32), 0) - 1
    byte = tl.load(packed + (rank >> 3), mask=kept, other=0).to(tl.int32)
    sign = tl.where(kept, 1 - 2 * ((byte >> (rank & 7).to(tl.int32)) & 1), 0).to(total.dtype.element_ty)
    if ADD:
        sign = tl.load(total + at, mask=at < count, other=0) + sign
    tl.store(total + at, sign, mask=at < count)


@kernel
def _cut(
    packed: tl.tensor, low: tl.int64, n_bits: tl.int64, cut: tl.tensor, n_bytes: tl.int64, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    source = (low >> 3) + at
    inside = 8 * at < n_bits
    here = tl.load(packed + source, mask=inside & (source < n_bytes), other=0).to(tl.int32)
    next_ = tl.load(packed + source + 1, mask=inside & (source + 1 < n_bytes), other=0).to(tl.int32)
    bits = ((next_ << 8) | here) >> (low & 7).to(tl.int32)
    left = n_bits - 8 * at
    bits = tl.where(left >= 8, bits, bits & ((1 << (left & 7).to(tl.int32)) - 1))
    tl.store(cut + at, bits.to(tl.uint8), mask=inside)


@kernel
def _majority(
    voters: tl.tensor, n_voters: tl.int64, stride: tl.int64, count: tl.int64, winners: tl.tensor, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    negatives = tl.zeros([BLOCK], tl.int32)
    for voter in range(n_voters):
        byte = tl.load(voters + voter * stride + (at >> 3), mask=at < count, other=0).to(tl.int32)
        negatives += (byte >> (at & 7).to(tl.int32)) & 1
    _write_bytes((at < count) & (2 * negatives > n_voters), winners, count, BLOCK)


@kernel
def _momentum(
    gradient: tl.tensor, momentum: tl.tensor, count: tl.int64, mu: tl.float64, rest: tl.float64, packed: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    old = tl.load(momentum + at, mask=at < count, other=0)
    new = tl.load(gradient + at, mask=at < count, other=0)
    new = tl.full([1], mu, new.dtype) * old + tl.full([1], rest, new.dtype) * new
    tl.store(gradient + at, new, mask=at < count)
    _write_bytes(new < 0, packed, count, BLOCK)


@kernel
def _owe_step(
    gradient: tl.tensor, momentum: tl.tensor, debt: tl.tensor, new_momentum: tl.tensor, new_debt: tl.tensor,
    spoiled: tl.tensor, mu: tl.float64, decay: tl.float64, c: tl.float64, count: tl.int64,
    first: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    here = tl.load(gradient + at, mask=inside, other=0)
    factor = tl.full([1], mu, here.dtype)
    new = factor * tl.load(momentum + at, mask=inside, other=0) + here
    owed = tl.full([1], decay, here.dtype) * tl.load(debt + at, mask=inside, other=0)
    tl.store(new_momentum + at, new, mask=inside)
    wish = factor * new + here + owed
    tl.atomic_max(spoiled, tl.max((inside & (wish - wish != 0)).to(tl.int32), 0))  # inf - inf is NaN
    _owe(wish, new_debt, c, at, count, first, low_key, high_key, threshold, before, packed, MASKED, BLOCK)


@kernel
def _owe_total(
    total: tl.tensor, debt: tl.tensor, new_debt: tl.tensor,
    among: tl.int64, scale: tl.float64, decay: tl.float64, c: tl.float64, count: tl.int64,
    first: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    owed = tl.load(debt + at, mask=inside, other=0)
    sum_ = tl.load(total + at, mask=inside, other=0).to(owed.dtype)
    n = tl.full([BLOCK], among, owed.dtype)
    mean = tl.div_rn(sum_, n) if owed.dtype == tl.float32 else sum_ / n  # of float64 it is IEEE 754's anyway
    wish = tl.full([1], decay, owed.dtype) * owed + tl.full([1], scale, owed.dtype) * mean
    _owe(wish, new_debt, c, at, count, first, low_key, high_key, threshold, before, packed, MASKED, BLOCK)
