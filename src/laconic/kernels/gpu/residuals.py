"""Error feedback with scaled signs on a GPU: one pass corrects and packs. Reference: `reference/residuals.py`.

Elements and signs are the same bits. Magnitudes are added by chunks of a block, in an order that is always the same.
"""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.checks import FLOATS
from laconic.kernels.gpu.block_norms import CHUNK, block_of, blocks, chunk_of
from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.gpu.signs import write_bytes
from laconic.kernels.reference import residuals as reference_residuals

_BLOCK = 1024


def correct(vector: Tensor, residual: Tensor, *, divisor: int = 1, decay: float = 1.0) -> None:
    """See `reference.residuals.correct`."""
    count, before = vector.numel(), residual.contiguous()
    launch(
        _pass, blocks_of(count, _BLOCK), vector, before, vector, vector, vector, count, 0.0, decay, divisor,
        CORRECTS=True, MOVES=False, PACKS=False, BLOCK=_BLOCK,
    )  # fmt: skip


def mean_signs(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """See `reference.residuals.mean_signs`."""
    values = values.contiguous()
    packed = _packed_like(values)
    launch(
        _pass, blocks_of(values.numel(), _BLOCK), values, values, values, values, packed, values.numel(), 0.0, 1.0, 1,
        CORRECTS=False, MOVES=False, PACKS=True, BLOCK=_BLOCK,
    )  # fmt: skip
    return packed, _means(values, BlockLengths.of(lengths))


def correct_signs(
    vector: Tensor, residual: Tensor, lengths: Sequence[int], *, divisor: int = 1, decay: float = 1.0
) -> tuple[Tensor, Tensor]:
    """See `reference.residuals.correct_signs`."""
    packed, count = _packed_like(vector), vector.numel()
    launch(
        _pass, blocks_of(count, _BLOCK), vector, residual.contiguous(), vector, vector, packed, count, 0.0, decay,
        divisor, CORRECTS=True, MOVES=False, PACKS=True, BLOCK=_BLOCK,
    )  # fmt: skip
    return packed, _means(vector, BlockLengths.of(lengths))


def momentum_correct_signs(
    gradient: Tensor, momentum: Tensor, residual: Tensor, new_momentum: Tensor, lengths: Sequence[int],
    *, mu: float, decay: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """See `reference.residuals.momentum_correct_signs`."""
    packed, count = _packed_like(gradient), gradient.numel()
    launch(
        _pass, blocks_of(count, _BLOCK), gradient, residual.contiguous(), momentum.contiguous(), new_momentum, packed,
        count, mu, decay, 1, CORRECTS=True, MOVES=True, PACKS=True, BLOCK=_BLOCK,
    )  # fmt: skip
    return packed, _means(gradient, BlockLengths.of(lengths))


def put_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], out: Tensor) -> None:
    """See `reference.residuals.put_scaled_signs`."""
    if _are_alike(scales, out):
        _write(packed, scales, lengths, out, add=False)
    else:
        reference_residuals.put_scaled_signs(packed, scales, lengths, out)


def add_scaled_signs(packed: Tensor, scales: Tensor, lengths: Sequence[int], total: Tensor) -> None:
    """See `reference.residuals.add_scaled_signs`."""
    if _are_alike(scales, total):
        _write(packed, scales, lengths, total, add=True)
    else:
        reference_residuals.add_scaled_signs(packed, scales, lengths, total)


def _are_alike(scales: Tensor, out: Tensor) -> bool:
    return out.dtype in FLOATS and out.dtype == scales.dtype and out.is_contiguous()


def _packed_like(values: Tensor) -> Tensor:
    return torch.empty(blocks_of(values.numel(), 8), dtype=torch.uint8, device=values.device)


def _means(values: Tensor, lengths: BlockLengths) -> Tensor:
    """Return the mean magnitude of each block of contiguous values."""
    means = torch.empty(len(lengths), dtype=values.dtype, device=values.device)
    if not len(lengths):
        return means
    table = blocks(lengths, values.device)
    sums = torch.empty(len(table.owners), dtype=torch.float64, device=values.device)
    launch(_sum_magnitudes, len(sums), values, table.edges, table.chunks, table.owners, sums, CHUNK=CHUNK)
    launch(_mean, len(lengths), sums, table.chunks, table.edges, means, CHUNK=CHUNK)
    return means


def _write(packed: Tensor, scales: Tensor, lengths: Sequence[int], out: Tensor, *, add: bool) -> None:
    if not out.numel():
        return
    table = blocks(BlockLengths.of(lengths), out.device)
    launch(
        _scaled, blocks_of(out.numel(), _BLOCK), out, packed.contiguous(), scales.contiguous(), out.numel(),
        *table.arguments, ADD=add, STEPS=table.steps, BLOCK=_BLOCK,
    )  # fmt: skip


@kernel
def _pass(
    vector: tl.tensor, residual: tl.tensor, momentum: tl.tensor, new_momentum: tl.tensor, packed: tl.tensor,
    count: tl.int64, mu: tl.float64, decay: tl.float64, divisor: tl.int64,
    CORRECTS: tl.constexpr, MOVES: tl.constexpr, PACKS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Correct the vector, with momentum if it MOVES, and write the signs if it PACKS."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    value = tl.load(vector + at, mask=inside, other=0)
    if CORRECTS:
        carried = tl.full([1], decay, value.dtype) * tl.load(residual + at, mask=inside, other=0)
        if MOVES:
            factor = tl.full([1], mu, value.dtype)
            new = factor * tl.load(momentum + at, mask=inside, other=0) + value
            tl.store(new_momentum + at, new, mask=inside)
            value = factor * new + value + carried
        else:
            n = tl.full([BLOCK], divisor, value.dtype)
            share = tl.div_rn(value, n) if value.dtype == tl.float32 else value / n  # of float64 it is IEEE 754's
            value = share + carried
        tl.store(vector + at, value, mask=inside)
    if PACKS:
        write_bytes(inside & (value < 0), packed, count, BLOCK)


@kernel
def _sum_magnitudes(
    values: tl.tensor, edges: tl.tensor, chunks: tl.tensor, owners: tl.tensor, sums: tl.tensor, CHUNK: tl.constexpr
) -> None:  # fmt: skip
    """Write the sum of magnitudes of each chunk."""
    _, at, stop = chunk_of(edges, chunks, owners, CHUNK)
    value = tl.load(values + at, mask=at < stop, other=0).to(tl.float64)
    tl.store(sums + tl.program_id(0), tl.sum(tl.abs(value), 0))


@kernel
def _mean(sums: tl.tensor, chunks: tl.tensor, edges: tl.tensor, means: tl.tensor, CHUNK: tl.constexpr) -> None:
    block = tl.program_id(0)
    stop = tl.load(chunks + block + 1)
    total = tl.zeros([CHUNK], tl.float64)
    for start in range(tl.load(chunks + block), stop, CHUNK):
        at = start + tl.arange(0, CHUNK)
        total += tl.load(sums + at, mask=at < stop, other=0)
    length = (tl.load(edges + block + 1) - tl.load(edges + block)).to(tl.float64)
    tl.store(means + block, (tl.sum(total, 0) / length).to(means.dtype.element_ty))


@kernel
def _scaled(
    out: tl.tensor, packed: tl.tensor, scales: tl.tensor, count: tl.int64, edges: tl.tensor, n_blocks: tl.int64,
    size: tl.int64, ADD: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Write or add every block's scale with the signs of its elements."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    scale = tl.load(scales + block_of(at, edges, n_blocks, size, STEPS), mask=inside, other=0)
    byte = tl.load(packed + (at >> 3), mask=inside, other=0).to(tl.int32)
    value = (1 - 2 * ((byte >> (at & 7).to(tl.int32)) & 1)).to(scale.dtype) * scale
    if ADD:
        value = tl.load(out + at, mask=inside, other=0) + value
    tl.store(out + at, value, mask=inside)
