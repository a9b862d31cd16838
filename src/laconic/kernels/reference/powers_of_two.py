"""Powers of two, zeros, and values with short mantissas, as codes of a sign and an exponent: the reference, in torch.

A code is the first bits of the value's pattern: 9 bits of float32, 12 of float64. Codes are packed as
`reference.fractional.pack_codes` packs them. The first bits of mantissas are a second
string of packed codes, the tails.
"""

import torch
from torch import Tensor

from laconic.kernels.reference.finite import all_finite
from laconic.kernels.reference.fractional import pack_codes, unpack_codes
from laconic.kernels.reference.stochastic_rounding import round_to_powers, shortened

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
EXPONENT_BITS = {torch.float32: 9, torch.float64: 12}  # sign and exponent


def exponent_codes(values: Tensor) -> Tensor:
    """Return the sign and exponent of each of values (d,) float32 or float64: (d,) int32, below 2**EXPONENT_BITS."""
    patterns = values.contiguous().view(INTEGERS[values.dtype])
    return ((patterns >> MANTISSA_BITS[values.dtype]) & ((1 << EXPONENT_BITS[values.dtype]) - 1)).int()


def power_codes(values: Tensor, offset: int, key: int) -> tuple[Tensor, bool]:
    """Round values to powers of two at random, and pack their signs and exponents.

    Args:
        values: (d,) float32 or float64.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.

    Returns:
        The packed codes of `round_to_powers`, (ceil(9 d / 8),) or for float64 (ceil(12 d / 8),) uint8, and whether all
        values are finite.
    """
    rounded = round_to_powers(values, offset, key)
    return pack_codes(exponent_codes(rounded), EXPONENT_BITS[values.dtype]), all_finite(rounded)


def short_codes(values: Tensor, mantissa_bits: int) -> tuple[Tensor, Tensor, bool]:
    """Clear the last bits of mantissas, and pack signs and exponents, and the bits of the mantissas that are left.

    Args:
        values: (d,) float32 or float64.
        mantissa_bits: 0 .. 22, bits of a mantissa that are left.

    Returns:
        The packed signs and exponents, (ceil(9 d / 8),) or for float64 (ceil(12 d / 8),) uint8; the tails,
        (ceil(mantissa_bits d / 8),) uint8; and whether all values are finite.
    """
    short = shortened(values, mantissa_bits)
    packed = pack_codes(exponent_codes(short), EXPONENT_BITS[values.dtype])
    patterns = short.contiguous().view(INTEGERS[values.dtype])
    tails = (patterns >> (MANTISSA_BITS[values.dtype] - mantissa_bits)) & ((1 << mantissa_bits) - 1)
    packed_tails = pack_codes(tails.int(), mantissa_bits) if mantissa_bits else packed[:0]
    return packed, packed_tails, powers_finite(packed, values.numel(), values.dtype)


def put_powers(packed: Tensor, out: Tensor, tails: Tensor | None = None, mantissa_bits: int = 0) -> None:
    """Write the values that packed codes stand for.

    Args:
        packed: The packed signs and exponents.
        out: (d,) float32 or float64, whose type the codes have, overwritten.
        tails: The packed first bits of the mantissas; None for powers of two.
        mantissa_bits: Bits of a mantissa that are there.
    """
    patterns = unpack_codes(packed, out.numel(), EXPONENT_BITS[out.dtype]).to(INTEGERS[out.dtype])
    patterns = patterns << MANTISSA_BITS[out.dtype]
    if tails is not None and mantissa_bits:
        bits = unpack_codes(tails, out.numel(), mantissa_bits).to(patterns.dtype)
        patterns |= bits << (MANTISSA_BITS[out.dtype] - mantissa_bits)
    out.copy_(patterns.view(out.dtype))


def add_powers(
    packed: Tensor, total: Tensor, tails: Tensor | None = None, mantissa_bits: int = 0, *, subtract: bool = False
) -> None:
    """Add the values that packed codes stand for to `total` (d,), in place, or subtract them. Codes as above."""
    powers = torch.empty_like(total)
    put_powers(packed, powers, tails, mantissa_bits)
    total.add_(powers, alpha=-1 if subtract else 1)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """Return whether none of `count` packed codes of values of `dtype` stands for inf or NaN."""
    all_ones = (1 << (EXPONENT_BITS[dtype] - 1)) - 1
    return not bool(((unpack_codes(packed, count, EXPONENT_BITS[dtype]) & all_ones) == all_ones).any())
