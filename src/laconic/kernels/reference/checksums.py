"""The largest magnitude of a vector and its checksum, CRC-32 as of zlib, in the pass that reads or writes it.

The reference: ordinary torch, and a library's CRC-32.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.finite import absolute_maximum
from laconic.kernels.reference.flatten import gather

try:  # many times as fast as zlib, whose CRC-32 takes longer than a fast link
    from isal.isal_zlib import crc32 as crc32
except ImportError:  # a platform without it
    from zlib import crc32 as crc32

_POLYNOMIAL = 0xEDB88320  # of CRC-32: the lowest bit is the coefficient of x**31
_ONE = 1 << 31
INVERTED = 0xFFFFFFFF
"""What a checksum is combined with before and after it is made, by exclusive or."""


def checksum_of(vector: Tensor, found: int = 0) -> int:
    """Return the CRC-32 of bytes of which `found` is that of all before a vector's, (d,)."""
    return crc32(memoryview(vector.detach().cpu().contiguous().view(torch.uint8).numpy()), found)  # type: ignore[arg-type]


def largest_and_checksum(vector: Tensor, found: int = 0) -> tuple[float, int]:
    """Return the largest magnitude of a vector, and its checksum.

    Args:
        vector: (d,), of any float type.
        found: The checksum of the bytes before.

    Returns:
        The largest magnitude, NaN if the vector has one; and the CRC-32 of the bytes before and the vector's.
    """
    return absolute_maximum(vector), checksum_of(vector, found)


@torch.no_grad()
def gather_with_checksum(tensors: Sequence[Tensor], out: Tensor) -> tuple[float, int]:
    """Copy tensors, one behind the other, into a vector (d,); return its largest magnitude and its CRC-32."""
    gather(tensors, out)
    return largest_and_checksum(out)


def joined_checksum(one: int, other: int, n_bytes: int) -> int:
    """Return the CRC-32 of bytes of which `one` is that of all but the last n_bytes, and `other` that of those."""
    return shifted(one, n_bytes) ^ other


def shifted(remainder: int, n_bytes: int) -> int:
    """Return a remainder times x**(8 * n_bytes), modulo the polynomial."""
    return _sum_of(remainder, _multiples_by_length(n_bytes))


@functools.lru_cache(1 << 10)
def _multiples_by_length(n_bytes: int) -> list[tuple[int, int]]:
    """Return the multiples of x**(8 * n_bytes): chunks have few lengths."""
    return _multiples_of(power_of_x(8 * n_bytes))


@functools.lru_cache(1 << 10)
def power_of_x(n: int) -> int:
    """Return x**n modulo the polynomial, n >= 0; bit 31 is the coefficient of 1."""
    power, square = _ONE, _ONE >> 1
    while n:
        if n & 1:
            power = _sum_of(power, _multiples_of(square))
        square, n = _sum_of(square, _multiples_of(square)), n >> 1
    return power


def _multiples_of(one: int) -> list[tuple[int, int]]:
    """Return each power of x as a bit, and the polynomial times it, modulo the other one."""
    multiples = []
    for i in range(32):
        multiples.append((_ONE >> i, one))
        one = one >> 1 ^ (_POLYNOMIAL if one & 1 else 0)
    return multiples


def _sum_of(powers: int, multiples: list[tuple[int, int]]) -> int:
    """Return the sum of multiples for the bits of `powers`: the product of two polynomials."""
    total = 0
    for bit, multiple in multiples:
        if powers & bit:
            total ^= multiple
    return total
