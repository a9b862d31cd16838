"""Hashed random bits, masks sampled from them, and packed bits: the reference, in torch, for any device.

Shapes: d parameters, k selected, b packed bytes. `wire/FORMAT.md`, section 3.2, defines the hash.
"""

import torch
from torch import Tensor

FACTOR_1, FACTOR_2 = 0x7FEB352D, 0x846CA68B
"""The factors of `hash32`."""

_LOW_16_BITS = 0xFFFF
_ALL = 1 << 32
_ALL_64 = (1 << 64) - 1
_MAGIC = 0x0102040810204080  # as a factor: gathers eight 0/1 bytes of an int64 in its top byte, first byte lowest


def _signed(word: int) -> int:
    """Return a 32-bit pattern as the int32 that torch stores; torch's int32 arithmetic wraps."""
    word &= _ALL - 1
    return word - _ALL if word >= _ALL >> 1 else word


def key_words(key: int) -> tuple[int, int]:
    """Mix a key and split it into two words.

    The mix is SplitMix64's, in which every bit of the key can change every bit of the result. Without it, keys that
    differ in one half only would give the same stream of hashes in another order, or shifted.

    Args:
        key: 0 .. 2**64 - 1.

    Returns:
        The low and the high 32 bits of the mixed key.
    """
    mixed = (key + 0x9E3779B97F4A7C15) & _ALL_64
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _ALL_64
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _ALL_64
    mixed ^= mixed >> 31
    return mixed & (_ALL - 1), mixed >> 32


def hash32(offset: int, count: int, key: int, device: torch.device | None = None) -> Tensor:
    """Return 32 random bits for each of the coordinates offset .. offset + count - 1.

    Two rounds of xor-shift and multiplication over the coordinate's number. The low half of the mixed key enters before
    the first multiplication, the high half between the two. The bits are the same on every device.

    Args:
        offset: Number of the first coordinate.
        count: Number of coordinates; the last one is at most 2**32 - 1.
        key: 0 .. 2**64 - 1.
        device: Where the result is made; None for torch's default.

    Returns:
        (count,) int32. All patterns are equally likely.
    """
    return _hashed(torch.arange(offset, offset + count, dtype=torch.int32, device=device), key)


def hash_at(positions: Tensor, key: int) -> Tensor:
    """Return the same bits for the coordinates in `positions` (n,) int64: (n,) int32."""
    return _hashed(positions.to(torch.int32, copy=True), key)


def _hashed(x: Tensor, key: int) -> Tensor:
    """Hash coordinates (n,) int32 in place, and return them."""
    low, high = key_words(key)
    x.bitwise_xor_(_signed(low))
    x.bitwise_xor_((x >> 16).bitwise_and_(_LOW_16_BITS))
    x.mul_(_signed(FACTOR_1))
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.add_(_signed(high))
    x.mul_(_signed(FACTOR_2))
    return x.bitwise_xor_((x >> 16).bitwise_and_(_LOW_16_BITS))


def keep_mask(offset: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> Tensor:
    """Return which coordinates a keyed Bernoulli draw selects: those whose hash is below the threshold.

    Args:
        offset: Number of the first coordinate.
        count: Number of coordinates.
        key: 0 .. 2**64 - 1.
        threshold: 1 .. 2**32; a coordinate is selected with probability threshold / 2**32.
        device: Where the result is made; None for torch's default.

    Returns:
        (count,) bool.

    Raises:
        ValueError: The threshold is out of range.
    """
    if not 1 <= threshold <= _ALL:
        raise ValueError(f"keep_mask: threshold={threshold} must be in 1 .. 2**32")
    if threshold == _ALL:
        return torch.ones(count, dtype=torch.bool, device=device)
    flipped = hash32(offset, count, key, device).bitwise_xor_(_signed(1 << 31))  # unsigned order in signed order
    return flipped < _signed(threshold ^ (1 << 31))


def pack_bits(bits: Tensor) -> Tensor:
    """Pack (k,) bool into (ceil(k/8),) uint8; bit j of byte i is element 8i+j; unused bits of the last byte are 0."""
    k = bits.numel()
    padded = torch.zeros((k + 7) // 8 * 8, dtype=torch.uint8, device=bits.device)
    padded[:k] = bits
    return ((padded.view(torch.int64) * _MAGIC) >> 56).to(torch.uint8)


def unpack_bits(packed: Tensor, k: int) -> Tensor:
    """Invert `pack_bits`: (ceil(k/8),) uint8 -> (k,) bool."""
    bit_indices = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> bit_indices) & 1).reshape(-1)[:k].to(torch.bool)


def scatter_signs(negative: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return -1 or +1 where a mask is set, and 0 elsewhere.

    Args:
        negative: (k,) bool, one for each element that the mask selects, in order; True stands for -1.
        mask: (d,) bool with k elements set, or None where all elements are selected.
        dtype: Type of the result.

    Returns:
        (d,) of `dtype`.
    """
    signs = negative.to(dtype).mul_(-2).add_(1)
    if mask is None:
        return signs
    return torch.zeros(mask.numel(), dtype=dtype, device=mask.device).masked_scatter_(mask, signs)
