"""Powers of two, and zeros, as codes of a sign and an exponent, in ordinary torch.

A code is the first bits of the value's pattern: 9 of float32, 12 of float64. Codes are packed as
`plain_fractional.pack_codes` packs them.
"""

import torch
from torch import Tensor

from laconic.kernels.plain_fractional import pack_codes, unpack_codes
from laconic.kernels.plain_quantized import round_to_powers
from laconic.kernels.plain_sums import all_finite

INTEGERS = {torch.float32: torch.int32, torch.float64: torch.int64}
MANTISSA_BITS = {torch.float32: 23, torch.float64: 52}
HEAD_BITS = {torch.float32: 9, torch.float64: 12}  # sign and exponent


def head_codes(values: Tensor) -> Tensor:
    """The sign and the exponent of each of values (d,) float32 or float64: (d,) int32, below 2**HEAD_BITS."""
    patterns = values.contiguous().view(INTEGERS[values.dtype])
    return ((patterns >> MANTISSA_BITS[values.dtype]) & ((1 << HEAD_BITS[values.dtype]) - 1)).int()


def power_codes(values: Tensor, first: int, key: int) -> tuple[Tensor, bool]:
    """values (d,) float32 or float64 -> the packed codes of `plain_quantized.round_to_powers`, and whether all values
    are finite."""
    rounded = round_to_powers(values, first, key)
    return pack_codes(head_codes(rounded), HEAD_BITS[values.dtype]), all_finite(rounded)


def put_powers(packed: Tensor, out: Tensor) -> None:
    """What packed codes stand for, into `out` (d,) float32 or float64, whose own codes they are."""
    patterns = unpack_codes(packed, out.numel(), HEAD_BITS[out.dtype]).to(INTEGERS[out.dtype])
    out.copy_((patterns << MANTISSA_BITS[out.dtype]).view(out.dtype))


def add_powers(packed: Tensor, total: Tensor) -> None:
    """The same, added to `total`."""
    powers = torch.empty_like(total)
    put_powers(packed, powers)
    total.add_(powers)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """Whether none of `count` packed codes stands for inf or NaN. dtype: the type of the values."""
    most = (1 << (HEAD_BITS[dtype] - 1)) - 1
    return not bool(((unpack_codes(packed, count, HEAD_BITS[dtype]) & most) == most).any())
