"""Signs on a keyed mask, on a GPU, the same bits. Reference: `reference/signs.py`.

Where a mask selects elements, a first kernel counts how many each block selects; their cumulative sum tells the next
kernel where its block's bits begin. A word at the edge of a block has bits of two blocks, so bits are set by atomic
ors. The host waits for the number of selected elements.
"""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.checks import stream as check_stream
from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.gpu.hashing import hashed
from laconic.kernels.reference.hashing import key_words
from laconic.kernels.reference.signs import ALL_SELECTED

_BLOCK = 1024
_BYTES = 1024  # of a block, in kernels that write one byte an element


def count_selected(offset: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> int:
    """See `reference.signs.count_selected`."""
    if threshold in (0, ALL_SELECTED):
        return count if threshold else 0
    return int(_selected_per_block(offset, count, key, threshold, device).sum())


def selected_bits(
    offset: int, count: int, key: int, threshold: int, device: torch.device | None = None
) -> tuple[Tensor, int]:
    """See `reference.signs.selected_bits`."""
    sampled = torch.empty(blocks_of(count, 8), dtype=torch.uint8, device=device)
    launch(
        _draw, blocks_of(count, _BLOCK), sampled, count, offset, *key_words(key), threshold % ALL_SELECTED,
        MASKED=threshold != ALL_SELECTED, BLOCK=_BLOCK,
    )  # fmt: skip
    return sampled, count_selected(offset, count, key, threshold, device)


def pack_signs(values: Tensor, offset: int, key: int, threshold: int) -> tuple[Tensor, int]:
    """See `reference.signs.pack_signs`."""
    count = values.numel()
    buffer = _PackBuffer(offset, count, key, threshold, values.device)
    launch(_pack, buffer.n_blocks, values.contiguous(), count, *buffer.arguments, MASKED=buffer.masked, BLOCK=_BLOCK)
    return buffer.packed, buffer.n_selected


def put_signs(
    packed: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """See `reference.signs.put_signs`.

    `packed` may be in the host's memory. The mask is sampled again, which takes less time than reading it.
    """
    _unpack_into(packed, offset, key, threshold, out, add=False)


def add_signs(
    packed: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None
) -> None:
    """See `reference.signs.add_signs`, and `put_signs`."""
    _unpack_into(packed, offset, key, threshold, total, add=True)


def slice_bits(packed: Tensor, low: int, high: int) -> Tensor:
    """See `reference.signs.slice_bits`."""
    n_bits = max(0, high - low)
    sliced = torch.empty(blocks_of(n_bits, 8), dtype=torch.uint8, device=packed.device)
    launch(_slice, blocks_of(len(sliced), _BYTES), packed.contiguous(), low, n_bits, sliced, len(packed), BLOCK=_BYTES)
    return sliced


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


def error_feedback_step(
    tensors: Sequence[Tensor], momentum: Tensor, residual: Tensor, new_momentum: Tensor, new_residual: Tensor,
    *, mu: float, decay: float, c: float, offset: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None, bool]:  # fmt: skip
    """See `reference.signs.error_feedback_step`."""
    gradient = torch.cat([tensor.reshape(-1) for tensor in tensors]).to(new_residual.dtype)
    count = gradient.numel()
    buffer = _PackBuffer(offset, count, key, threshold, gradient.device)
    non_finite = torch.zeros(1, dtype=torch.int32, device=gradient.device)
    launch(
        _error_feedback_step, buffer.n_blocks, gradient, momentum.contiguous(), residual.contiguous(), new_momentum,
        new_residual, non_finite,
        mu, decay, c, count, *buffer.arguments, MASKED=buffer.masked, BLOCK=_BLOCK,
    )  # fmt: skip
    return buffer.packed, buffer.n_selected, None, not bool(non_finite.item())


def error_feedback_total(
    total: Tensor, residual: Tensor, new_residual: Tensor,
    *, divisor: int, scale: float, decay: float, c: float, offset: int, key: int, threshold: int,
) -> tuple[Tensor, int, Tensor | None]:  # fmt: skip
    """See `reference.signs.error_feedback_total`."""
    count = total.numel()
    buffer = _PackBuffer(offset, count, key, threshold, total.device)
    launch(
        _error_feedback_total, buffer.n_blocks, total, residual.contiguous(), new_residual, divisor, scale, decay, c,
        count, *buffer.arguments,
        MASKED=buffer.masked, BLOCK=_BLOCK,
    )  # fmt: skip
    return buffer.packed, buffer.n_selected, None


class _PackBuffer:
    """Buffers for the signs of selected elements: words of 0, and how many elements are selected before each block."""

    def __init__(self, offset: int, count: int, key: int, threshold: int, device: torch.device) -> None:
        self.n_blocks = blocks_of(count, _BLOCK)
        self.masked = threshold != ALL_SELECTED
        if self.masked:
            per_block = _selected_per_block(offset, count, key, threshold, device)
            before = per_block.cumsum(0) - per_block
            self.n_selected = int(per_block.sum()) if threshold else 0
        else:
            before = torch.empty(0, dtype=torch.int64, device=device)
            self.n_selected = count
        words = torch.zeros(blocks_of(self.n_selected, 32), dtype=torch.int32, device=device)
        self.packed = words.view(torch.uint8)[: blocks_of(self.n_selected, 8)]
        target = words if self.masked else self.packed  # bits are set in words, or full bytes are written
        self.arguments = (offset, *key_words(key), threshold % ALL_SELECTED, before, target)


def _selected_per_block(offset: int, count: int, key: int, threshold: int, device: torch.device | None) -> Tensor:
    """Return how many elements of each block are selected: (blocks,) int64."""
    n_blocks = blocks_of(count, _BLOCK)
    per_block = torch.empty(n_blocks, dtype=torch.int64, device=device)
    launch(_count, n_blocks, per_block, count, offset, *key_words(key), threshold, BLOCK=_BLOCK)
    return per_block


def _unpack_into(packed: Tensor, offset: int, key: int, threshold: int, total: Tensor, *, add: bool) -> None:
    """Write or add the signs at the selected elements of `total`."""
    count = total.numel()
    masked = threshold != ALL_SELECTED
    before = packed
    n_selected = count
    if masked:
        per_block = _selected_per_block(offset, count, key, threshold, total.device)
        upto = per_block.cumsum(0)
        before, n_selected = upto - per_block, int(upto[-1]) if count else 0
    check_stream("add_signs" if add else "put_signs", packed, n_selected)
    launch(
        _unpack, blocks_of(count, _BLOCK), total, packed.to(total.device).contiguous(), count, offset,
        *key_words(key), threshold % ALL_SELECTED, before, MASKED=masked, ADD=add, BLOCK=_BLOCK,
    )  # fmt: skip


@kernel
def _selected_at(
    at: tl.tensor, count: tl.tensor, offset: tl.tensor, low_key: tl.tensor, high_key: tl.tensor, threshold: tl.tensor,
    MASKED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Return which elements `at` (n,) are selected; none behind the last one."""
    selected = at < count
    if MASKED:
        selected = selected & (hashed(offset + at, low_key, high_key).to(tl.int64) < threshold)
    return selected


@kernel
def _write_signs(
    negative: tl.tensor, selected: tl.tensor, before: tl.tensor, packed: tl.tensor, count: tl.tensor,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Write the bits of this block's selected elements."""
    block = tl.program_id(0).to(tl.int64)
    if MASKED:
        rank = tl.load(before + block) + tl.cumsum(selected.to(tl.int32), 0) - 1
        bits = (selected & negative).to(tl.int32) << (rank & 31).to(tl.int32)
        tl.atomic_or(packed + (rank >> 5), bits, mask=selected & negative)
    else:
        write_bytes(selected & negative, packed, count, BLOCK)


@kernel
def write_bytes(negative: tl.tensor, packed: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr) -> None:
    """Write one bit for each element of this block."""
    bits = tl.reshape(negative.to(tl.int32), [BLOCK // 8, 8]) << tl.arange(0, 8)[None, :]
    at = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    tl.store(packed + at, tl.sum(bits, 1).to(tl.uint8), mask=8 * at < count)


@kernel
def _error_feedback(
    corrected: tl.tensor, new_residual: tl.tensor, c: tl.tensor, at: tl.tensor, count: tl.tensor,
    offset: tl.tensor, low_key: tl.tensor, high_key: tl.tensor, threshold: tl.tensor,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Write the signs of the selected elements, and what they leave of the corrected values as the new residual."""
    selected = _selected_at(at, count, offset, low_key, high_key, threshold, MASKED)
    negative = corrected < 0
    sent = tl.full([1], c, corrected.dtype)
    sent = tl.where(selected, tl.where(negative, -sent, sent), tl.zeros([1], corrected.dtype))
    tl.store(new_residual + at, corrected - sent, mask=at < count)
    _write_signs(negative, selected, before, packed, count, MASKED, BLOCK)


@kernel
def _count(
    per_block: tl.tensor, count: tl.int64, offset: tl.int64, low_key: tl.int64, high_key: tl.int64,
    threshold: tl.int64, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    selected = _selected_at(block * BLOCK + tl.arange(0, BLOCK), count, offset, low_key, high_key, threshold, True)
    tl.store(per_block + block, tl.sum(selected.to(tl.int64), 0))


@kernel
def _draw(
    sampled: tl.tensor, count: tl.int64, offset: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    write_bytes(_selected_at(at, count, offset, low_key, high_key, threshold, MASKED), sampled, count, BLOCK)


@kernel
def _pack(
    values: tl.tensor, count: tl.int64, offset: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(values + at, mask=at < count, other=0)
    if value.dtype == tl.bfloat16:
        value = value.to(tl.float32)
    selected = _selected_at(at, count, offset, low_key, high_key, threshold, MASKED)
    _write_signs(value < 0, selected, before, packed, count, MASKED, BLOCK)


@kernel
def _unpack(
    total: tl.tensor, packed: tl.tensor, count: tl.int64, offset: tl.int64, low_key: tl.int64, high_key: tl.int64,
    threshold: tl.int64, before: tl.tensor, MASKED: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    selected = _selected_at(at, count, offset, low_key, high_key, threshold, MASKED)
    rank = at
    if MASKED:
        rank = tl.load(before + block) + tl.cumsum(selected.to(tl.int32), 0) - 1
    byte = tl.load(packed + (rank >> 3), mask=selected, other=0).to(tl.int32)
    sign = tl.where(selected, 1 - 2 * ((byte >> (rank & 7).to(tl.int32)) & 1), 0).to(total.dtype.element_ty)
    if ADD:
        sign = tl.load(total + at, mask=at < count, other=0) + sign
    tl.store(total + at, sign, mask=at < count)


@kernel
def _slice(
    packed: tl.tensor, low: tl.int64, n_bits: tl.int64, sliced: tl.tensor, n_bytes: tl.int64, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    source = (low >> 3) + at
    inside = 8 * at < n_bits
    here = tl.load(packed + source, mask=inside & (source < n_bytes), other=0).to(tl.int32)
    next_ = tl.load(packed + source + 1, mask=inside & (source + 1 < n_bytes), other=0).to(tl.int32)
    bits = ((next_ << 8) | here) >> (low & 7).to(tl.int32)
    left = n_bits - 8 * at
    bits = tl.where(left >= 8, bits, bits & ((1 << (left & 7).to(tl.int32)) - 1))
    tl.store(sliced + at, bits.to(tl.uint8), mask=inside)


@kernel
def _majority(
    voters: tl.tensor, n_voters: tl.int64, stride: tl.int64, count: tl.int64, winners: tl.tensor, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    negatives = tl.zeros([BLOCK], tl.int32)
    for voter in range(n_voters):
        byte = tl.load(voters + voter * stride + (at >> 3), mask=at < count, other=0).to(tl.int32)
        negatives += (byte >> (at & 7).to(tl.int32)) & 1
    write_bytes((at < count) & (2 * negatives > n_voters), winners, count, BLOCK)


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
    write_bytes(new < 0, packed, count, BLOCK)


@kernel
def _error_feedback_step(
    gradient: tl.tensor, momentum: tl.tensor, residual: tl.tensor, new_momentum: tl.tensor, new_residual: tl.tensor,
    non_finite: tl.tensor, mu: tl.float64, decay: tl.float64, c: tl.float64, count: tl.int64,
    offset: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    here = tl.load(gradient + at, mask=inside, other=0)
    factor = tl.full([1], mu, here.dtype)
    new = factor * tl.load(momentum + at, mask=inside, other=0) + here
    carried = tl.full([1], decay, here.dtype) * tl.load(residual + at, mask=inside, other=0)
    tl.store(new_momentum + at, new, mask=inside)
    corrected = factor * new + here + carried
    tl.atomic_max(non_finite, tl.max((inside & (corrected - corrected != 0)).to(tl.int32), 0))  # inf - inf is NaN
    _error_feedback(
        corrected, new_residual, c, at, count, offset, low_key, high_key, threshold, before, packed, MASKED, BLOCK
    )


@kernel
def _error_feedback_total(
    total: tl.tensor, residual: tl.tensor, new_residual: tl.tensor,
    divisor: tl.int64, scale: tl.float64, decay: tl.float64, c: tl.float64, count: tl.int64,
    offset: tl.int64, low_key: tl.int64, high_key: tl.int64, threshold: tl.int64,
    before: tl.tensor, packed: tl.tensor, MASKED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    carried = tl.load(residual + at, mask=inside, other=0)
    sum_ = tl.load(total + at, mask=inside, other=0).to(carried.dtype)
    n = tl.full([BLOCK], divisor, carried.dtype)
    mean = tl.div_rn(sum_, n) if carried.dtype == tl.float32 else sum_ / n  # of float64 it is IEEE 754's anyway
    corrected = tl.full([1], decay, carried.dtype) * carried + tl.full([1], scale, carried.dtype) * mean
    _error_feedback(
        corrected, new_residual, c, at, count, offset, low_key, high_key, threshold, before, packed, MASKED, BLOCK
    )
