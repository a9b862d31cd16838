"""Stochastic rounding on a GPU, the same bits: one read and one write. Reference: `reference/stochastic_rounding.py`.

A first, small kernel computes each block's factors. Divisions are those of IEEE 754: Triton's own for float32 is not,
and torch's on a GPU multiplies by a reciprocal.
"""

from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.gpu.block_norms import absolute_maxima as absolute_maxima
from laconic.kernels.gpu.block_norms import block_of, blocks
from laconic.kernels.gpu.block_norms import norms as norms
from laconic.kernels.gpu.block_norms import ranges as ranges
from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.gpu.hashing import hashed
from laconic.kernels.gpu.packed_codes import BLOCK, load_codes, packed_like, store_codes
from laconic.kernels.reference.hashing import key_words
from laconic.kernels.reference.stochastic_rounding import FRACTION_BITS, TINY_BITS, level_bits
from laconic.kernels.reference.stochastic_rounding import (
    levels_allowed as levels_allowed,  # for decoders of frames, on the CPU
)


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """See `reference.stochastic_rounding.quantize`."""
    return _quantized(values, lows, highs, lengths, (1 << bits) - 1, bits, offset, key, signed=False)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, offset: int, key: int
) -> Tensor:
    """See `reference.stochastic_rounding.quantize_levels`."""
    lows = torch.zeros_like(scales)
    return _quantized(values, lows, scales, lengths, steps, level_bits(steps), offset, key, signed=True)


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int) -> Tensor:
    """See `reference.stochastic_rounding.dequantize`."""
    return _dense(packed, lows, highs, lengths, (1 << bits) - 1, bits, signed=False)


def levels_dense(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int) -> Tensor:
    """See `reference.stochastic_rounding.levels_dense`."""
    return _dense(packed, torch.zeros_like(scales), scales, lengths, steps, level_bits(steps), signed=True)


def put_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """See `reference.stochastic_rounding.put_dequantized`. The packed codes may be in the host's memory."""
    _write(packed, lows, highs, lengths, (1 << bits) - 1, bits, out, signed=False, times=0)


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, total: Tensor,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """See `reference.stochastic_rounding.add_dequantized`. The packed codes may be in the host's memory."""
    times = -1 if subtract else 1
    _write(packed, lows, highs, lengths, (1 << bits) - 1, bits, total, signed=False, times=times)


def put_levels(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, out: Tensor) -> None:
    """See `reference.stochastic_rounding.put_levels`. The packed codes may be in the host's memory."""
    _write(packed, torch.zeros_like(scales), scales, lengths, steps, level_bits(steps), out, signed=True, times=0)


def add_levels(
    packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, total: Tensor, *, subtract: bool = False
) -> None:
    """See `reference.stochastic_rounding.add_levels`. The packed codes may be in the host's memory."""
    lows, times = torch.zeros_like(scales), -1 if subtract else 1
    _write(packed, lows, scales, lengths, steps, level_bits(steps), total, signed=True, times=times)


def _factors(lows: Tensor, highs: Tensor, max_code: int, *, dense: bool) -> Tensor:
    """Return each block's factors.

    Args:
        lows: (blocks,), the low end of each block.
        highs: (blocks,), the high ends.
        max_code: The last code.
        dense: Steps from one code to the next, to turn codes into values; otherwise codes per unit, for quantizing.

    Returns:
        (3, blocks): the power of two that each range is multiplied by, then the low end and the step, so multiplied.
    """
    made = torch.empty(3, len(lows), dtype=lows.dtype, device=lows.device)
    tiny = 2.0 ** TINY_BITS[lows.dtype]
    launch(
        _prepare, blocks_of(len(lows), BLOCK), lows.contiguous(), highs.contiguous(), len(lows), made,
        TINY=tiny, INV_TINY=1 / tiny, MORE=1 + torch.finfo(lows.dtype).eps, MAX_CODE=max_code,
        TOP=max_code << FRACTION_BITS, DENSE=dense, BLOCK=BLOCK,
    )  # fmt: skip
    return made


def _quantized(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], max_code: int, bits: int, offset: int,
    key: int,
    *, signed: bool,
) -> Tensor:  # fmt: skip
    count = len(values)
    packed = packed_like(values, count, bits)
    factors = _factors(lows, highs, max_code, dense=False)
    table = blocks(BlockLengths.of(lengths), values.device)
    launch(
        _quantize, blocks_of(count, BLOCK), values.contiguous(), count, factors, *table.arguments, offset,
        *key_words(key), packed, FRACTION=FRACTION_BITS, TOP=max_code << FRACTION_BITS, SIGNED=signed,
        BITS=bits, STEPS=table.steps, BLOCK=BLOCK,
    )  # fmt: skip
    return packed


def _dense(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], max_code: int, bits: int, *, signed: bool
) -> Tensor:
    made = torch.empty(
        BlockLengths.of(lengths).total, dtype=torch.promote_types(lows.dtype, torch.float32), device=packed.device
    )
    _put(packed, lows, highs, lengths, max_code, bits, made, signed=signed, times=0)
    return made.to(lows.dtype)


def _write(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], max_code: int, bits: int, out: Tensor,
    *, signed: bool, times: int,
) -> None:  # fmt: skip
    packed, lows, highs = (one.to(out.device) for one in (packed, lows, highs))
    if out.dtype == lows.dtype and out.dtype in TINY_BITS and out.is_contiguous():
        _put(packed, lows, highs, lengths, max_code, bits, out, signed=signed, times=times)
        return
    dense = _dense(packed, lows, highs, lengths, max_code, bits, signed=signed)
    if times:
        out.add_(dense, alpha=times)
    else:
        out.copy_(dense)


def _put(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], max_code: int, bits: int, out: Tensor,
    *, signed: bool, times: int,
) -> None:  # fmt: skip
    lows, highs = lows.to(out.dtype), highs.to(out.dtype)
    factors = _factors(lows, highs, max_code, dense=True)
    table = blocks(BlockLengths.of(lengths), out.device)
    launch(
        _dequantize, blocks_of(len(out), BLOCK), out, packed.contiguous(), len(out), factors, highs.contiguous(),
        *table.arguments, MAX_CODE=max_code, SIGNED=signed, TIMES=times, BITS=bits, STEPS=table.steps, BLOCK=BLOCK,
    )  # fmt: skip


@kernel
def _divided(one: tl.tensor, other: tl.tensor) -> tl.tensor:
    """Return one / other rounded as IEEE 754 has it, both (n,) of one type."""
    return tl.div_rn(one, other) if one.dtype == tl.float32 else one / other


@kernel
def _prepare(
    lows: tl.tensor, highs: tl.tensor, n_blocks: tl.int64, factors: tl.tensor, TINY: tl.constexpr,
    INV_TINY: tl.constexpr, MORE: tl.constexpr, MAX_CODE: tl.constexpr, TOP: tl.constexpr, DENSE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    low = tl.load(lows + at, mask=at < n_blocks, other=0)
    high = tl.load(highs + at, mask=at < n_blocks, other=0)
    span = high - low
    factor = tl.full([BLOCK], 1.0, low.dtype)
    factor = tl.where((span > 0) & (span < tl.full([1], INV_TINY, low.dtype)), tl.full([1], TINY, low.dtype), factor)
    factor = tl.where(span - span == 0, factor, tl.full([1], 0.5, low.dtype))  # inf - inf is NaN
    bottom = low * factor
    span = high * factor - bottom
    if DENSE:
        step = _divided(span, tl.full([BLOCK], MAX_CODE, low.dtype))
    else:
        top = tl.full([BLOCK], TOP, low.dtype)
        step = _divided(top, span)
        step = tl.where(span * step < top, step * tl.full([1], MORE, low.dtype), step)
    tl.store(factors + at, factor, mask=at < n_blocks)
    tl.store(factors + n_blocks + at, bottom, mask=at < n_blocks)
    tl.store(factors + 2 * n_blocks + at, step, mask=at < n_blocks)


@kernel
def _quantize(
    values: tl.tensor, count: tl.int64, factors: tl.tensor, edges: tl.tensor, n_blocks: tl.int64, size: tl.int64,
    offset: tl.int64, low_key: tl.int64, high_key: tl.int64, packed: tl.tensor,
    FRACTION: tl.constexpr, TOP: tl.constexpr, SIGNED: tl.constexpr, BITS: tl.constexpr, STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    block = block_of(at, edges, n_blocks, size, STEPS)
    value = tl.load(values + at, mask=inside, other=0)
    factor = tl.load(factors + block, mask=inside, other=0)
    bottom = tl.load(factors + n_blocks + block, mask=inside, other=0)
    step = tl.load(factors + 2 * n_blocks + block, mask=inside, other=0)
    magnitude = tl.abs(value) if SIGNED else value
    place = (magnitude * factor - bottom) * step
    top = tl.full([BLOCK], TOP, value.dtype)
    place = tl.where(place > 0, place, 0.0)  # also for NaN
    place = tl.where(place < top, place, top).to(tl.int32)
    sampled = (hashed(offset + at, low_key, high_key) >> (32 - FRACTION)).to(tl.int32)
    codes = tl.where(inside, (sampled + place) >> FRACTION, 0)
    if SIGNED:
        codes = codes | (((value < 0) & (codes > 0)).to(tl.int32) << (BITS - 1))
    store_codes(codes, packed, count, BITS, BLOCK)


@kernel
def _dequantize(
    out: tl.tensor, packed: tl.tensor, count: tl.int64, factors: tl.tensor, highs: tl.tensor,
    edges: tl.tensor, n_blocks: tl.int64, size: tl.int64, MAX_CODE: tl.constexpr, SIGNED: tl.constexpr,
    TIMES: tl.constexpr, BITS: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    block = block_of(at, edges, n_blocks, size, STEPS)
    high = tl.load(highs + block, mask=inside, other=0)
    factor = tl.load(factors + block, mask=inside, other=1)
    bottom = tl.load(factors + n_blocks + block, mask=inside, other=0)
    step = tl.load(factors + 2 * n_blocks + block, mask=inside, other=0)
    codes = load_codes(packed, at, count, BITS)
    level = codes & ((1 << (BITS - 1)) - 1) if SIGNED else codes
    value = (level.to(high.dtype) * step + bottom) * _divided(tl.full([BLOCK], 1.0, high.dtype), factor)
    value = tl.where((value < high) & (level != MAX_CODE), value, high) + 0.0
    if SIGNED:
        value = tl.where((codes >> (BITS - 1)) > 0, -value, value)
    if TIMES != 0:
        value = tl.load(out + at, mask=inside, other=0) + TIMES * value
    tl.store(out + at, value, mask=inside)
