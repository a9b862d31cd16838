"""Randomized rounding in ordinary torch: to knobs between two ends, to levels of a scale, to powers of two.

Letters: d entries in blocks of the given lengths, which add up to d. Codes are `bits` bits each, packed as
`plain_fractional.pack_codes` packs them. The arithmetic is that of the values' type: float32 stays float32, so that
eight entries fit one instruction, and every operation is written down here, since the compiled versions give the same
bits. Every draw is a hash of the entry's coordinate and a key, so it is the same on every device and however a vector
is cut.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from laconic.kernels.plain import hash32
from laconic.kernels.plain_fractional import pack_codes, unpack_codes

_MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
FRACTION_BITS = 23  # of a place between two codes: with a code of 8 bits it fits a signed 32-bit word
TINY_BITS = {torch.float32: 60, torch.float64: 500}  # a range below 2**-this is enlarged by 2**this


def level_bits(steps: int) -> int:
    """The bits of one coordinate's code: a sign, and a level of 0 .. steps."""
    return 1 + steps.bit_length()


def spread(of_blocks: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """(blocks,) -> (d,): every entry its own block's; (1,) where there is one block."""
    if len(lengths) == 1:
        return of_blocks
    repeats = torch.tensor(lengths, dtype=torch.int64, device=of_blocks.device)
    return of_blocks.repeat_interleave(repeats, output_size=sum(lengths))


def range_factors(lows: Tensor, highs: Tensor) -> Tensor:
    """(blocks,): powers of two that make a block's range neither overflow nor vanish; 1 but for extreme ranges."""
    spans = highs - lows
    tiny = 2.0 ** TINY_BITS[lows.dtype]
    factors = torch.ones_like(spans)
    factors[(spans > 0) & (spans < 1 / tiny)] = tiny
    factors[~torch.isfinite(spans)] = 0.5
    return factors


def places(values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], most: int) -> Tensor:
    """Where values (d,) are from their block's low end, 0, to its high end, `most`: (d,) int32, in units of
    2**-FRACTION_BITS, rounded down. lows, highs: (blocks,) of values' type, float32 or float64.

    The high end itself is at `most` whatever the rounding. 0 in a block that is constant, and for NaN.
    """
    factors = range_factors(lows, highs)
    bottoms = lows * factors
    spans = highs * factors - bottoms
    top = most << FRACTION_BITS
    steps = torch.full_like(spans, top) / spans  # not of a number: torch would multiply by a rounded reciprocal
    short = spans * steps < top  # rounded down: one unit in the last place is enough
    steps = torch.where(short, steps * (1 + torch.finfo(steps.dtype).eps), steps)
    found = (values * spread(factors, lengths) - spread(bottoms, lengths)) * spread(steps, lengths)
    return torch.where(found > 0, found, 0.0).clamp_(max=top).to(torch.int32)


def draw(found: Tensor, first: int, key: int) -> Tensor:
    """places (d,) int32 -> codes (d,) int32: the whole number above with the fraction as probability."""
    hashes = hash32(first, found.numel(), key, found.device)
    return ((hashes >> (32 - FRACTION_BITS)).bitwise_and_((1 << FRACTION_BITS) - 1) + found) >> FRACTION_BITS


def knobs(codes: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], most: int) -> Tensor:
    """What codes (d,) in 0 .. most stand for: (d,) of the ends' type; worked out in float32 for bfloat16."""
    dtype = torch.promote_types(lows.dtype, torch.float32)
    lows_, highs_ = lows.to(dtype), highs.to(dtype)
    factors = range_factors(lows_, highs_)
    bottoms = lows_ * factors
    steps = (highs_ * factors - bottoms) / torch.full_like(factors, most)
    found = codes.to(dtype) * spread(steps, lengths) + spread(bottoms, lengths)
    found = found * spread(1 / factors, lengths)
    high = spread(highs_, lengths)
    return (torch.where((found < high) & (codes != most), found, high) + 0.0).to(lows.dtype)


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """(d,) -> packed codes (ceil(bits d / 8),) uint8, drawn so that the mean of `dequantize` over keys is the values.

    lows, highs: (blocks,), the ends of each block; bits: 1 .. 8. The mean is exact but for the rounding of float32 (or
    float64) and 2**-23 of a step.
    """
    most = (1 << bits) - 1
    return pack_codes(draw(places(values, lows, highs, lengths, most), first, key), bits)


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """Packed codes -> the knobs low + code (high - low) / (2**bits - 1): (d,) of the ends' type.

    The first and the last knob are the ends themselves, and none is beyond them. A zero has no minus sign.
    """
    return knobs(unpack_codes(packed, sum(lengths), bits), lows, highs, lengths, (1 << bits) - 1)


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, total: Tensor
) -> None:
    """total (d,), of any float type, += `dequantize`."""
    total.add_(dequantize(packed, lows, highs, lengths, bits))


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """(d,) -> packed codes of level_bits(steps) bits, drawn so that the mean of `levels_dense` is the values.

    A code's lowest bits are a level of 0 .. steps, its highest one is set for a level below zero, never for level 0.
    scales: (blocks,), none below a magnitude of its block. The mean is as exact as that of `quantize`.
    """
    found = places(values.abs(), torch.zeros_like(scales), scales, lengths, steps)
    levels = draw(found, first, key)
    negative = (values < 0) & (levels > 0)
    bits = level_bits(steps)
    return pack_codes(levels | negative.int() << (bits - 1), bits)


def levels_dense(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """Packed codes -> plus or minus level scale / steps: (d,) of the scales' type. The last level is the scale."""
    bits = level_bits(steps)
    codes = unpack_codes(packed, sum(lengths), bits)
    magnitudes = knobs(codes & ((1 << (bits - 1)) - 1), torch.zeros_like(scales), scales, lengths, steps)
    return torch.where(codes >> (bits - 1) > 0, -magnitudes, magnitudes)


def add_levels(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, total: Tensor) -> None:
    """total (d,), of any float type, += `levels_dense`."""
    total.add_(levels_dense(packed, scales, lengths, steps))


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """Whether no packed code of a level is above `steps`, or a zero with a minus sign."""
    bits = level_bits(steps)
    codes = unpack_codes(packed, count, bits)
    top = 1 << (bits - 1)
    return not bool((((codes & (top - 1)) > steps) | (codes == top)).any())


def per_block(values: Tensor, lengths: tuple[int, ...], measure: Callable[[Tensor], Tensor]) -> Tensor:
    """What `measure` makes of every block of values (d,): (blocks,). It takes (rows, size) and returns (rows,)."""
    if not lengths:  # of an empty vector
        return values[:0]
    size = lengths[0]
    if lengths[-1] > size or any(length != size for length in lengths[:-1]):
        return torch.cat([measure(block[None]) for block in torch.split(values, list(lengths))])
    whole = values.numel() // size
    parts = [values[: whole * size].view(whole, size)] if whole else []
    if whole < len(lengths):
        parts.append(values[whole * size :][None])
    return torch.cat([measure(part) for part in parts])


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The least and the largest value of each block of values (d,) float32 or float64: two of (blocks,).

    In the order of their bits: -0 is below 0, and a NaN is beyond infinity on the side of its sign.
    """
    keys = _ordered(values.view(_INTEGERS[values.dtype]))
    lows, highs = (
        per_block(keys, lengths, lambda rows: rows.amin(1)),
        per_block(keys, lengths, lambda rows: rows.amax(1)),
    )
    return _ordered(lows).view(values.dtype), _ordered(highs).view(values.dtype)


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """The largest magnitude of each block of values (d,) float32 or float64: (blocks,). NaN where there is one."""
    keys = values.view(_INTEGERS[values.dtype]) & torch.iinfo(_INTEGERS[values.dtype]).max
    return per_block(keys, lengths, lambda rows: rows.amax(1)).view(values.dtype)


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """||v_b||_2 of each block of values (d,) float32 or float64, added up in float64: (blocks,) of values' type.

    Never below a magnitude of its block. The compiled version adds in another order: the two agree to 2**-22
    (float64: 2**-40) of the norm.
    """
    return per_block(values, lengths, _row_norms)


def _row_norms(rows: Tensor) -> Tensor:
    """(rows, size) -> (rows,); divided by the largest first, so that no square overflows or vanishes."""
    largest = rows.double().abs().amax(1)
    divisor = torch.where(largest > 0, largest, 1.0)
    exact = largest * (rows.double() / divisor[:, None]).square().sum(1).sqrt()
    return exact.to(rows.dtype).maximum(rows.abs().amax(1))


def _ordered(patterns: Tensor) -> Tensor:
    """Bits of floats as whole numbers in the floats' order, and back."""
    return torch.where(patterns < 0, patterns ^ torch.iinfo(patterns.dtype).max, patterns)


def shortened(values: Tensor, mantissa_bits: int) -> Tensor:
    """values (d,) float32 or float64, rounded toward zero to so many bits of mantissa: the lower ones are cleared."""
    cleared = _MANTISSA_BITS[values.dtype] - mantissa_bits
    patterns = values.view(_INTEGERS[values.dtype])
    return (patterns >> cleared << cleared).view(values.dtype)


def power_places(values: Tensor) -> tuple[Tensor, Tensor]:
    """The power of two (or zero) below each magnitude, and how far on its way to the one above it is, in [0, 1).

    values: (d,) float32 or float64. Both are (d,), float64. There is no way up from the largest power.
    """
    width = _MANTISSA_BITS[values.dtype]
    patterns = values.view(_INTEGERS[values.dtype])
    largest = 2.0 ** (127 if values.dtype == torch.float32 else 1023)
    below = shortened(values, 0).double().abs()
    fractions = (patterns & ((1 << width) - 1)).double() * 2.0**-width
    return below, torch.where(below >= largest, 0.0, fractions)


def uniforms(first: int, count: int, key: int, device: torch.device | None = None) -> Tensor:
    """One number in [0, 1) for each of the coordinates first .. first+count-1: (count,) float64, hash32 * 2**-32."""
    return hash32(first, count, key, device).long().bitwise_and_((1 << 32) - 1).double().mul_(2.0**-32)


def round_to_powers(values: Tensor, first: int, key: int) -> Tensor:
    """values (d,) float32 or float64 -> each a neighbouring power of two or zero, drawn so that the mean is the value.

    Magnitudes above the largest power come down to it; inf and NaN stay inf or NaN.
    """
    _, fractions = power_places(values)
    up = uniforms(first, values.numel(), key, values.device) < fractions
    patterns = shortened(values, 0).view(_INTEGERS[values.dtype])
    return (patterns + (up.to(patterns.dtype) << _MANTISSA_BITS[values.dtype])).view(values.dtype)
