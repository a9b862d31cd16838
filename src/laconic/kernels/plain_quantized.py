"""Randomized rounding in ordinary torch: to knobs between two ends, to levels of a scale, to powers of two.

Letters: d entries in blocks of the given lengths, which add up to d. The arithmetic is float64 for float32 values too.
Every draw is a hash of the entry's coordinate and a key, so it is the same on every device and however a vector is cut.
"""

import torch
from torch import Tensor

from laconic.kernels.plain import hash32

_MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
_INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}


def uniforms(first: int, count: int, key: int, device: torch.device | None = None) -> Tensor:
    """One number in [0, 1) for each of the coordinates first .. first+count-1: (count,) float64, hash32 * 2**-32."""
    return hash32(first, count, key, device).long().bitwise_and_((1 << 32) - 1).double().mul_(2.0**-32)


def spread(of_blocks: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """(blocks,) -> (d,) float64: every entry's own block's; (1,) where there is one block."""
    if len(lengths) == 1:
        return of_blocks.double()
    repeats = torch.tensor(lengths, device=of_blocks.device)
    return of_blocks.double().repeat_interleave(repeats, output_size=sum(lengths))


def range_places(values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """Where values (d,) are between lows and highs (blocks,), in steps from 0 to 2**bits - 1: (d,) float64.

    0 in a block that is constant.
    """
    low, high = spread(lows, lengths), spread(highs, lengths)
    half = torch.where(torch.isfinite(high - low), 1.0, 0.5)  # a float64 range may be more than a float64 holds
    low, high = half * low, half * high
    places = (half * values.double() - low) / (high - low) * ((1 << bits) - 1)
    return torch.nan_to_num(places, nan=0.0).clamp_(0, (1 << bits) - 1)


def level_places(values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """Where magnitudes of values (d,) are between 0 and their block's scale, in `steps` steps: (d,) float64.

    0 in a block whose scale is 0.
    """
    places = values.double().abs() / spread(scales, lengths) * steps
    return torch.nan_to_num(places, nan=0.0).clamp_(max=steps)


def round_randomly(places: Tensor, first: int, key: int) -> Tensor:
    """places (d,) float64, not negative -> (d,) float64: the whole number above with the fraction as probability."""
    below = places.floor()
    return below + (uniforms(first, places.numel(), key, places.device) < places - below)


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """(d,) -> codes (d,) uint8 in 0 .. 2**bits - 1, drawn so that the mean of `dequantize` over keys is the values.

    lows, highs: (blocks,), the ends of each block; bits: 1 .. 8.
    """
    return round_randomly(range_places(values, lows, highs, lengths, bits), first, key).to(torch.uint8)


def dequantize(codes: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """Codes (d,) -> the knobs low (1 - w) + high w with w = code / (2**bits - 1): (d,) of the ends' type.

    The first and the last knob are the ends themselves, and none is beyond them. A zero has no minus sign.
    """
    low, high = spread(lows, lengths), spread(highs, lengths)
    weights = codes.double() / ((1 << bits) - 1)
    knobs = low * (1 - weights) + high * weights
    return (torch.minimum(torch.maximum(knobs, low), high) + 0.0).to(lows.dtype)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """(d,) -> signed levels (d,) int16 in -steps .. steps, drawn so that the mean of `levels_dense` is the values.

    scales: (blocks,), none below a magnitude of its block.
    """
    levels = round_randomly(level_places(values, scales, lengths, steps), first, key).to(torch.int16)
    return torch.where(values < 0, -levels, levels)


def levels_dense(levels: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """Signed levels (d,) -> scale * (level / steps), (d,) of the scales' type."""
    return (spread(scales, lengths) * (levels.double() / steps)).to(scales.dtype)


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


def round_to_powers(values: Tensor, first: int, key: int) -> Tensor:
    """values (d,) float32 or float64 -> each a neighbouring power of two or zero, drawn so that the mean is the value.

    Magnitudes above the largest power come down to it; inf and NaN stay inf or NaN.
    """
    _, fractions = power_places(values)
    up = uniforms(first, values.numel(), key, values.device) < fractions
    patterns = shortened(values, 0).view(_INTEGERS[values.dtype])
    return (patterns + (up.to(patterns.dtype) << _MANTISSA_BITS[values.dtype])).view(values.dtype)
