"""Blocks of neighboring elements on a GPU: which block an element is in, and minimum, maximum and norm of each.

Reference: `reference/stochastic_rounding.py`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.gpu.compile import kernel, launch

CHUNK = 2048  # elements that one program measures


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """Where blocks begin and end. Chunks are parts of one block each, in order."""

    size: int  # of all blocks but the last; 0 where they differ
    edges: Tensor  # (blocks + 1,) int64
    chunks: Tensor  # (blocks + 1,) int64, the number of each block's first chunk
    owners: Tensor  # (chunks,) int64, the block of each chunk

    @property
    def arguments(self) -> tuple[Tensor, int, int]:
        """The arguments of `block_of`."""
        return self.edges, len(self.edges) - 1, self.size

    @property
    def steps(self) -> int:
        """How many halvings `block_of` takes; 0 where all blocks have one size."""
        return 0 if self.size else (len(self.edges) - 1).bit_length()


@functools.lru_cache(maxsize=16)
def blocks(lengths: BlockLengths, device: torch.device) -> Blocks:
    """Return the table of blocks of the given lengths, on the device. It is cached."""
    in_block = -(-lengths.on(torch.device("cpu")) // CHUNK)
    owners = torch.arange(len(lengths)).repeat_interleave(in_block)
    chunks = torch.cat([in_block.new_zeros(1), in_block.cumsum(0)])
    return Blocks(
        size=lengths.size, edges=torch.from_numpy(lengths.edges).to(device), chunks=chunks.to(device),
        owners=owners.to(device),
    )  # fmt: skip


def ranges(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """See `reference.stochastic_rounding.ranges`."""
    lows, highs = _measured(values, lengths, magnitudes=False)
    return lows, highs


def absolute_maxima(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """See `reference.stochastic_rounding.absolute_maxima`."""
    return _measured(values, lengths, magnitudes=True)[1]


def norms(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """See `reference.stochastic_rounding.norms`. The order of additions is always the same."""
    table = blocks(BlockLengths.of(lengths), values.device)
    largest = absolute_maxima(values, lengths)
    sums = torch.empty(len(table.owners), dtype=torch.float64, device=values.device)
    launch(
        _sum_squares, len(sums), values.contiguous(), table.edges, table.chunks, table.owners, largest, sums,
        CHUNK=CHUNK,
    )  # fmt: skip
    made = torch.empty_like(largest)
    launch(_norm, len(lengths), sums, table.chunks, largest, made, CHUNK=CHUNK)
    return made


def _measured(values: Tensor, lengths: Sequence[int], *, magnitudes: bool) -> tuple[Tensor, Tensor]:
    """Return the minimum and maximum of each block, in the order of their bits: two of (blocks,) of values' type."""
    integer = torch.int32 if values.dtype == torch.float32 else torch.int64
    limits: Any = torch.iinfo(integer)
    table = blocks(BlockLengths.of(lengths), values.device)
    lows = torch.full((len(lengths),), limits.max, dtype=integer, device=values.device)
    highs = torch.full((len(lengths),), limits.min, dtype=integer, device=values.device)
    launch(
        _measure, len(table.owners), values.contiguous().view(integer), table.edges, table.chunks, table.owners,
        lows, highs, MAGNITUDES=magnitudes, MASK=limits.max, CHUNK=CHUNK,
    )  # fmt: skip
    if not magnitudes:
        lows, highs = (torch.where(keys < 0, keys ^ limits.max, keys) for keys in (lows, highs))
    return lows.view(values.dtype), highs.view(values.dtype)


@kernel
def block_of(at: tl.tensor, edges: tl.tensor, n_blocks: tl.tensor, size: tl.tensor, STEPS: tl.constexpr) -> tl.tensor:
    """Return the blocks that elements are in.

    Args:
        at: (n,) int64, indices of elements.
        edges: (blocks + 1,) int64.
        n_blocks: Number of blocks.
        size: The size of all blocks, where STEPS is 0.
        STEPS: Halvings of a binary search; 0 to divide by `size` instead.

    Returns:
        (n,) int64.
    """
    if STEPS == 0:
        return at // size
    block = at * 0
    for step in tl.static_range(STEPS):
        further = block + (1 << (STEPS - 1 - step))
        edge = tl.load(edges + further, mask=further < n_blocks, other=0)
        block = tl.where((further < n_blocks) & (edge <= at), further, block)
    return block


@kernel
def chunk_of(edges: tl.tensor, chunks: tl.tensor, owners: tl.tensor, CHUNK: tl.constexpr) -> tl.tensor:
    """Return this program's block, the indices of its elements (CHUNK,), and where the block ends."""
    chunk = tl.program_id(0)
    block = tl.load(owners + chunk)
    start = tl.load(edges + block) + (chunk - tl.load(chunks + block)) * CHUNK
    return block, start + tl.arange(0, CHUNK), tl.load(edges + block + 1)


@kernel
def _measure(
    keys: tl.tensor, edges: tl.tensor, chunks: tl.tensor, owners: tl.tensor, lows: tl.tensor, highs: tl.tensor,
    MAGNITUDES: tl.constexpr, MASK: tl.constexpr, CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    block, at, stop = chunk_of(edges, chunks, owners, CHUNK)
    key = tl.load(keys + at, mask=at < stop, other=0)
    if MAGNITUDES:
        key = key & MASK
    else:
        key = tl.where(key < 0, key ^ MASK, key)
        tl.atomic_min(lows + block, tl.min(tl.where(at < stop, key, MASK), 0))
    tl.atomic_max(highs + block, tl.max(tl.where(at < stop, key, -MASK - 1), 0))


@kernel
def _sum_squares(
    values: tl.tensor, edges: tl.tensor, chunks: tl.tensor, owners: tl.tensor, largest: tl.tensor, sums: tl.tensor,
    CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    """Write the sum of squares of each chunk, divided by its block's absolute maximum."""
    block, at, stop = chunk_of(edges, chunks, owners, CHUNK)
    divisor = tl.load(largest + block).to(tl.float64)
    share = tl.load(values + at, mask=at < stop, other=0).to(tl.float64) / tl.where(divisor == 0, 1.0, divisor)
    tl.store(sums + tl.program_id(0), tl.sum(share * share, 0))


@kernel
def _norm(sums: tl.tensor, chunks: tl.tensor, largest: tl.tensor, norms: tl.tensor, CHUNK: tl.constexpr) -> None:
    block = tl.program_id(0)
    stop = tl.load(chunks + block + 1)
    total = tl.zeros([CHUNK], tl.float64)
    for start in range(tl.load(chunks + block), stop, CHUNK):
        at = start + tl.arange(0, CHUNK)
        total += tl.load(sums + at, mask=at < stop, other=0)
    absolute_maximum = tl.load(largest + block)
    norm = (absolute_maximum.to(tl.float64) * tl.sqrt(tl.sum(total, 0))).to(absolute_maximum.dtype)
    tl.store(norms + block, tl.where(norm < absolute_maximum, absolute_maximum, norm))
