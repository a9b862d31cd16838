"""Stochastic rounding to grid points between two ends, levels of a scale, or powers of two: the reference, in torch.

Shapes: d elements in blocks of the given lengths, which add up to d. Codes have `bits` bits each, packed as
`reference.fractional.pack_codes` packs them.

The arithmetic is in the values' own type: float32 stays float32, so that eight elements fit one register. Compiled
versions give the same bits, so every operation and its order is part of the meaning. Every random number is a hash of
the element's coordinate and a key: the same on every device, and however a vector is split.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.reference.fractional import pack_codes, unpack_codes
from laconic.kernels.reference.hashing import hash32

_MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
FRACTION_BITS = 23  # of a fixed-point number of codes: with a code of 8 bits it fits int32
TINY_BITS = {torch.float32: 60, torch.float64: 500}  # a range below 2**-this is multiplied by 2**this


def level_bits(steps: int) -> int:
    """Return the bits of one element's code: a sign, and a level of 0 .. steps."""
    return 1 + steps.bit_length()


def per_element(of_blocks: Tensor, lengths: Sequence[int]) -> Tensor:
    """Repeat one value a block, (blocks,), for each of its elements: (d,), or (1,) where there is one block."""
    blocks = BlockLengths.of(lengths)
    if len(blocks) == 1:
        return of_blocks
    return of_blocks.repeat_interleave(blocks.on(of_blocks.device), output_size=blocks.total)


def range_factors(lows: Tensor, highs: Tensor) -> Tensor:
    """Return powers of two that keep the ranges of blocks from overflow and underflow.

    Args:
        lows: (blocks,) float32 or float64, the low end of each block.
        highs: (blocks,), the high ends.

    Returns:
        (blocks,) of the same type; 1 except for extreme ranges.
    """
    spans = highs - lows
    tiny = 2.0 ** TINY_BITS[lows.dtype]
    factors = torch.ones_like(spans)
    factors[(spans > 0) & (spans < 1 / tiny)] = tiny
    factors[~torch.isfinite(spans)] = 0.5
    return factors


def grid_positions(values: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], max_code: int) -> Tensor:
    """Return where values are between the ends of their blocks, as fixed-point numbers.

    The low end is at 0 and the high end at the last code, whatever the rounding in between. The result is 0 in a
    constant block, and for NaN.

    Args:
        values: (d,) float32 or float64.
        lows: (blocks,) of the values' type, the low end of each block.
        highs: (blocks,), the high ends.
        lengths: Elements of each block.
        max_code: The last code, that of the high end.

    Returns:
        (d,) int32, in units of 2**-FRACTION_BITS of a code, rounded down.
    """
    factors = range_factors(lows, highs)
    bottoms = lows * factors
    spans = highs * factors - bottoms
    top = max_code << FRACTION_BITS
    steps = torch.full_like(spans, top) / spans  # not of a number: torch would multiply by a rounded reciprocal
    short = spans * steps < top  # the division rounded down: one unit in the last place is enough
    steps = torch.where(short, steps * (1 + torch.finfo(steps.dtype).eps), steps)
    found = (values * per_element(factors, lengths) - per_element(bottoms, lengths)) * per_element(steps, lengths)
    return torch.where(found > 0, found, 0.0).clamp_(max=top).to(torch.int32)


def draw(found: Tensor, offset: int, key: int) -> Tensor:
    """Round fixed-point numbers to codes at random: up with the fraction as probability.

    Args:
        found: (d,) int32, in units of 2**-FRACTION_BITS.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.

    Returns:
        (d,) int32.
    """
    hashes = hash32(offset, found.numel(), key, found.device)
    return ((hashes >> (32 - FRACTION_BITS)).bitwise_and_((1 << FRACTION_BITS) - 1) + found) >> FRACTION_BITS


def values_of_codes(codes: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], max_code: int) -> Tensor:
    """Return the grid points that codes stand for.

    Args:
        codes: (d,) integers in 0 .. max_code.
        lows: (blocks,), the low end of each block: float32, float64, or bfloat16, which is computed in float32.
        highs: (blocks,), the high ends.
        lengths: Elements of each block.
        max_code: The last code.

    Returns:
        (d,) of the ends' type. The first and the last grid point are the ends themselves, and no zero is -0.0.
    """
    dtype = torch.promote_types(lows.dtype, torch.float32)
    lows_, highs_ = lows.to(dtype), highs.to(dtype)
    factors = range_factors(lows_, highs_)
    bottoms = lows_ * factors
    steps = (highs_ * factors - bottoms) / torch.full_like(factors, max_code)
    found = codes.to(dtype) * per_element(steps, lengths) + per_element(bottoms, lengths)
    found = found * per_element(1 / factors, lengths)
    high = per_element(highs_, lengths)
    return (torch.where((found < high) & (codes != max_code), found, high) + 0.0).to(lows.dtype)


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, offset: int, key: int
) -> Tensor:
    """Quantize values to packed codes at random, so that the mean of `dequantize` over keys is the values.

    The mean is exact except for rounding in the values' type and 2**-23 of a step.

    Args:
        values: (d,) float32 or float64.
        lows: (blocks,), the low end of each block.
        highs: (blocks,), the high ends.
        lengths: Elements of each block.
        bits: Bits of a code, 1 .. 8.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.

    Returns:
        (ceil(bits d / 8),) uint8.
    """
    max_code = (1 << bits) - 1
    return pack_codes(draw(grid_positions(values, lows, highs, lengths, max_code), offset, key), bits)


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int) -> Tensor:
    """Return the grid points low + code (high - low) / (2**bits - 1) that packed codes stand for.

    The first and the last grid point are the ends themselves, and none is beyond them. No zero is -0.0.

    Args:
        packed: (ceil(bits d / 8),) uint8.
        lows: (blocks,), the low end of each block.
        highs: (blocks,), the high ends.
        lengths: Elements of each block.
        bits: Bits of a code, 1 .. 8.

    Returns:
        (d,) of the ends' type.
    """
    return values_of_codes(
        unpack_codes(packed, BlockLengths.of(lengths).total, bits), lows, highs, lengths, (1 << bits) - 1
    )


def put_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, out: Tensor
) -> None:
    """Write `dequantize` to `out` (d,), of any float type."""
    out.copy_(dequantize(packed, lows, highs, lengths, bits))


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: Sequence[int], bits: int, total: Tensor,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """Add `dequantize` to `total` (d,), of any float type, in place, or subtract it."""
    total.add_(dequantize(packed, lows, highs, lengths, bits), alpha=-1 if subtract else 1)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, offset: int, key: int
) -> Tensor:
    """Quantize values to packed signed levels at random, so that the mean of `levels_dense` is the values.

    The lowest bits of a code are a level of 0 .. steps. Its highest bit is set for a level below zero, never for level
    0. The mean is as exact as that of `quantize`.

    Args:
        values: (d,) float32 or float64.
        scales: (blocks,), none below a magnitude of its block.
        lengths: Elements of each block.
        steps: The last level.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.

    Returns:
        Codes of level_bits(steps) bits: (ceil(bits d / 8),) uint8.
    """
    found = grid_positions(values.abs(), torch.zeros_like(scales), scales, lengths, steps)
    levels = draw(found, offset, key)
    negative = (values < 0) & (levels > 0)
    bits = level_bits(steps)
    return pack_codes(levels | negative.int() << (bits - 1), bits)


def levels_dense(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int) -> Tensor:
    """Return plus or minus level * scale / steps. The last level is the scale itself.

    Args:
        packed: (ceil(bits d / 8),) uint8, codes of level_bits(steps) bits.
        scales: (blocks,).
        lengths: Elements of each block.
        steps: The last level.

    Returns:
        (d,) of the scales' type.
    """
    bits = level_bits(steps)
    codes = unpack_codes(packed, BlockLengths.of(lengths).total, bits)
    magnitudes = values_of_codes(codes & ((1 << (bits - 1)) - 1), torch.zeros_like(scales), scales, lengths, steps)
    return torch.where(codes >> (bits - 1) > 0, -magnitudes, magnitudes)


def put_levels(packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, out: Tensor) -> None:
    """Write `levels_dense` to `out` (d,), of any float type."""
    out.copy_(levels_dense(packed, scales, lengths, steps))


def add_levels(
    packed: Tensor, scales: Tensor, lengths: Sequence[int], steps: int, total: Tensor, *, subtract: bool = False
) -> None:
    """Add `levels_dense` to `total` (d,), of any float type, in place, or subtract it."""
    total.add_(levels_dense(packed, scales, lengths, steps), alpha=-1 if subtract else 1)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """Return whether no packed code has a level above `steps`, or is a zero with a minus sign."""
    bits = level_bits(steps)
    codes = unpack_codes(packed, count, bits)
    top = 1 << (bits - 1)
    return not bool((((codes & (top - 1)) > steps) | (codes == top)).any())


def per_block(values: Tensor, lengths: Sequence[int], measure: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function to every block of a vector.

    Args:
        values: (d,).
        lengths: Elements of each block.
        measure: Takes (rows, size) and returns (rows,).

    Returns:
        (blocks,).
    """
    blocks = BlockLengths.of(lengths)
    if not blocks.total:  # an empty vector
        return values[:0]
    size = blocks.size
    if not size:
        return torch.cat([measure(block[None]) for block in torch.split(values, list(blocks))])
    full = values.numel() // size
    parts = [values[: full * size].view(full, size)] if full else []
    if full < len(blocks):
        parts.append(values[full * size :][None])
    return torch.cat([measure(part) for part in parts])


def ranges(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the minimum and the maximum of each block.

    Values are ordered by their bits: -0.0 is below 0.0, and a NaN is beyond infinity on the side of its sign.

    Args:
        values: (d,) float32 or float64.
        lengths: Elements of each block.

    Returns:
        Two of (blocks,) of the values' type.
    """
    keys = _ordered(values.view(_INTEGERS[values.dtype]))
    lows, highs = (
        per_block(keys, lengths, lambda rows: rows.amin(1)),
        per_block(keys, lengths, lambda rows: rows.amax(1)),
    )
    return _ordered(lows).view(values.dtype), _ordered(highs).view(values.dtype)


def absolute_maxima(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the absolute maximum of each block of values (d,) float32 or float64: (blocks,). NaN counts as largest."""
    keys = values.view(_INTEGERS[values.dtype]) & torch.iinfo(_INTEGERS[values.dtype]).max
    return per_block(keys, lengths, lambda rows: rows.amax(1)).view(values.dtype)


def norms(values: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the L2 norm of each block, added in float64, and never below a magnitude of the block.

    Compiled versions add in another order: they agree to 2**-22 (float64: 2**-40) of the norm.

    Args:
        values: (d,) float32 or float64.
        lengths: Elements of each block.

    Returns:
        (blocks,) of the values' type.
    """
    return per_block(values, lengths, _row_norms)


def _row_norms(rows: Tensor) -> Tensor:
    """(rows, size) -> (rows,). Divides by the absolute maximum first, so that no square overflows or underflows."""
    largest = rows.double().abs().amax(1)
    divisor = torch.where(largest > 0, largest, 1.0)
    exact = largest * (rows.double() / divisor[:, None]).square().sum(1).sqrt()
    return exact.to(rows.dtype).maximum(rows.abs().amax(1))


def _ordered(patterns: Tensor) -> Tensor:
    """Turn bits of floats into integers in the order of the floats, or back."""
    return torch.where(patterns < 0, patterns ^ torch.iinfo(patterns.dtype).max, patterns)


def shortened(values: Tensor, mantissa_bits: int) -> Tensor:
    """Round values (d,) toward zero to so many bits of mantissa: the bits below them are cleared."""
    cleared = _MANTISSA_BITS[values.dtype] - mantissa_bits
    patterns = values.view(_INTEGERS[values.dtype])
    return (patterns >> cleared << cleared).view(values.dtype)


def powers_and_fractions(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the power of two (or zero) below each magnitude, and the fraction of the way to the next one.

    Args:
        values: (d,) float32 or float64.

    Returns:
        Two of (d,) float64. Fractions are in [0, 1); that of the largest power is 0.
    """
    width = _MANTISSA_BITS[values.dtype]
    patterns = values.view(_INTEGERS[values.dtype])
    largest = 2.0 ** (127 if values.dtype == torch.float32 else 1023)
    below = shortened(values, 0).double().abs()
    fractions = (patterns & ((1 << width) - 1)).double() * 2.0**-width
    return below, torch.where(below >= largest, 0.0, fractions)


def uniforms(offset: int, count: int, key: int, device: torch.device | None = None) -> Tensor:
    """Return one number in [0, 1) for each coordinate offset .. offset+count-1: (count,) float64, hash32 * 2**-32."""
    return hash32(offset, count, key, device).long().bitwise_and_((1 << 32) - 1).double().mul_(2.0**-32)


def round_to_powers(values: Tensor, offset: int, key: int) -> Tensor:
    """Round values to a neighboring power of two or zero at random, so that the mean is the value.

    Magnitudes above the largest power are rounded down to it; inf and NaN stay inf or NaN.

    Args:
        values: (d,) float32 or float64.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.

    Returns:
        (d,) of the values' type.
    """
    _, fractions = powers_and_fractions(values)
    up = uniforms(offset, values.numel(), key, values.device) < fractions
    patterns = shortened(values, 0).view(_INTEGERS[values.dtype])
    return (patterns + (up.to(patterns.dtype) << _MANTISSA_BITS[values.dtype])).view(values.dtype)
