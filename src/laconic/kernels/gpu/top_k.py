"""Exact top-K on a GPU: nothing is sorted, and the host waits for nothing. Reference: `reference/top_k.py`.

The k-th largest magnitude is found digit by digit, 8 bits a round, by counting how often each digit occurs: 4 rounds
for float32, 8 for float64. One more pass counts what each block selects, and a last one writes the indices.

`keys` are the bits of floats as signed integers; without the sign they are the magnitudes in their order.
"""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.gpu.compile import blocks_of, kernel, launch

_BLOCK = 1024
_DIGIT_BITS = 8  # Triton's histogram takes time in proportion to its bins
_MAX_PROGRAMS = 1024  # that count digits; each adds its counts to the common ones once, at its end


def top_k(vector: Tensor, k: int) -> Tensor:
    """See `reference.top_k.top_k`."""
    d = vector.numel()
    keys = vector.detach().contiguous().view(torch.int32 if vector.dtype == torch.float32 else torch.int64)
    mask = torch.iinfo(keys.dtype).max
    n_blocks = blocks_of(d, _BLOCK)
    found = torch.zeros(2, dtype=torch.int64, device=keys.device)  # the leading digits, and how many keys are larger
    counts = torch.zeros(1 << _DIGIT_BITS, dtype=torch.int64, device=keys.device)
    known = mask.bit_length()
    while known:
        bits = min(known, _DIGIT_BITS)
        known -= bits
        launch(
            _count_digits, min(n_blocks, _MAX_PROGRAMS), keys, d, known, found, counts,
            MASK=mask, BITS=bits, BINS=len(counts), BLOCK=_BLOCK,
        )  # fmt: skip
        launch(_choose_digit, 1, counts, k, found, BITS=bits, BINS=len(counts))
    per_block = torch.empty(2, n_blocks, dtype=torch.int64, device=keys.device)
    launch(_count_blocks, n_blocks, keys, d, found, per_block, MASK=mask, BLOCK=_BLOCK)
    before = per_block.cumsum(1) - per_block
    positions = torch.empty(k, dtype=torch.int64, device=keys.device)
    launch(_write, n_blocks, keys, d, k, found, before, positions, MASK=mask, BLOCK=_BLOCK)
    return positions


def top_k_by_block(vector: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """See `reference.top_k.top_k_by_block`."""
    found, start = [], 0
    for length, k in blocks:
        found.append(top_k(vector[start : start + length], k) + start)
        start += length
    return torch.cat(found)


@kernel
def _count_digits(
    keys: tl.tensor, d: tl.int64, shift: tl.int32, found: tl.tensor, counts: tl.tensor,
    MASK: tl.constexpr, BITS: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Add to counts[digit] how many magnitudes have the digits found so far, followed by this one."""
    prefix = tl.load(found)
    own = tl.zeros([BINS], tl.int32)
    for start in range(tl.program_id(0).to(tl.int64) * BLOCK, d, tl.num_programs(0).to(tl.int64) * BLOCK):
        at = start + tl.arange(0, BLOCK)
        key = tl.load(keys + at, mask=at < d, other=0) & MASK
        counted = (at < d) & ((key >> shift) >> BITS == prefix)
        own += tl.histogram(((key >> shift) & (2**BITS - 1)).to(tl.int32), BINS, mask=counted)
    tl.atomic_add(counts + tl.arange(0, BINS), own.to(tl.int64), mask=own > 0)


@kernel
def _choose_digit(counts: tl.tensor, k: tl.int64, found: tl.tensor, BITS: tl.constexpr, BINS: tl.constexpr) -> None:
    """Append the digit of the k-th largest to the digits found, and clear the counts."""
    bins = tl.arange(0, BINS)
    here = tl.load(counts + bins)
    tl.store(counts + bins, tl.zeros([BINS], tl.int64))
    prefix = tl.load(found)
    larger = tl.load(found + 1)
    or_above = tl.sum(here, 0) - tl.cumsum(here, 0) + here  # magnitudes with this digit or a larger one
    digit = tl.sum((or_above >= k - larger).to(tl.int64), 0) - 1
    tl.store(found, (prefix << BITS) | digit)
    tl.store(found + 1, larger + tl.sum(tl.where(bins > digit, here, 0), 0))


@kernel
def _count_blocks(
    keys: tl.tensor, d: tl.int64, found: tl.tensor, per_block: tl.tensor, MASK: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    """Write per_block (2, blocks): how many magnitudes of a block are above the k-th largest, and how many equal."""
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    key = (tl.load(keys + at, mask=at < d, other=0) & MASK).to(tl.int64)
    threshold = tl.load(found)
    tl.store(per_block + block, tl.sum(((at < d) & (key > threshold)).to(tl.int64), 0))
    tl.store(per_block + tl.num_programs(0) + block, tl.sum(((at < d) & (key == threshold)).to(tl.int64), 0))


@kernel
def _write(
    keys: tl.tensor, d: tl.int64, k: tl.int64, found: tl.tensor, before: tl.tensor, positions: tl.tensor,
    MASK: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Write the indices above the k-th largest, and of those equal to it the first ones."""
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    key = (tl.load(keys + at, mask=at < d, other=0) & MASK).to(tl.int64)
    threshold = tl.load(found)
    n_ties = k - tl.load(found + 1)
    above_before = tl.load(before + block)
    ties_before = tl.load(before + tl.num_programs(0) + block)
    tie = (at < d) & (key == threshold)
    tie_rank = ties_before + tl.cumsum(tie.to(tl.int32), 0)  # from 1 on
    taken = (at < d) & ((key > threshold) | (tie & (tie_rank <= n_ties)))
    target = above_before + tl.where(ties_before < n_ties, ties_before, n_ties)
    tl.store(positions + target + tl.cumsum(taken.to(tl.int32), 0) - 1, at, mask=taken)
