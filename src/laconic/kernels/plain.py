"""The reference arithmetic, in ordinary torch.

Shapes: d coordinates, k kept, b packed bytes.
"""

import math

import torch
from torch import Tensor

_LOW_HALF = 0xFFFF
_ALL = 1 << 32
_ALL_64 = (1 << 64) - 1
_MAGIC = 0x0102040810204080  # gathers eight 0/1 bytes of one int64 into its top byte, first byte lowest


def _signed(word: int) -> int:
    """A 32-bit pattern as the int32 that torch stores (its int32 arithmetic wraps)."""
    word &= _ALL - 1
    return word - _ALL if word >= _ALL >> 1 else word


def key_halves(key: int) -> tuple[int, int]:
    """The low and the high 32 bits of the key, after a mix (SplitMix64's) that lets each bit of it change all of them.

    The hash alone would give keys that differ in one half the same stream in another order, or shifted.
    """
    mixed = (key + 0x9E3779B97F4A7C15) & _ALL_64
    mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _ALL_64
    mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _ALL_64
    mixed ^= mixed >> 31
    return mixed & (_ALL - 1), mixed >> 32


def hash32(first: int, count: int, key: int, device: torch.device | None = None) -> Tensor:
    """32 random bits for each of the coordinates first .. first+count-1: (count,) int32, all patterns equally likely.

    Two rounds of xor-shift and multiply over the coordinate's number. The low half of the mixed key enters before
    the first multiplication and the high half between the two. Same bits on every device.
    """
    return _hashed(torch.arange(first, first + count, dtype=torch.int32, device=device), key)


def hash_at(positions: Tensor, key: int) -> Tensor:
    """The same bits for the coordinates in `positions` (n,) int64: (n,) int32."""
    return _hashed(positions.to(torch.int32, copy=True), key)


def _hashed(x: Tensor, key: int) -> Tensor:
    """The hash of coordinates (n,) int32, in place."""
    low, high = key_halves(key)
    x.bitwise_xor_(_signed(low))
    x.bitwise_xor_((x >> 16).bitwise_and_(_LOW_HALF))
    x.mul_(_signed(0x7FEB352D))
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF))
    x.add_(_signed(high))
    x.mul_(_signed(0x846CA68B))
    return x.bitwise_xor_((x >> 16).bitwise_and_(_LOW_HALF))


def keep_mask(first: int, count: int, key: int, threshold: int, device: torch.device | None = None) -> Tensor:
    """Which coordinates a keyed coin keeps: (count,) bool, true iff the coordinate's hash < threshold.

    `threshold` is in 1 .. 2**32; the share kept is threshold / 2**32.
    """
    assert 1 <= threshold <= _ALL, threshold
    if threshold == _ALL:
        return torch.ones(count, dtype=torch.bool, device=device)
    flipped = hash32(first, count, key, device).bitwise_xor_(_signed(1 << 31))  # unsigned order as signed order
    return flipped < _signed(threshold ^ (1 << 31))


def pack_bits(bits: Tensor) -> Tensor:
    """(k,) bool -> (ceil(k/8),) uint8; bit j of byte i is entry 8i+j; unused bits of the last byte are 0."""
    k = bits.numel()
    padded = torch.zeros((k + 7) // 8 * 8, dtype=torch.uint8, device=bits.device)
    padded[:k] = bits
    return ((padded.view(torch.int64) * _MAGIC) >> 56).to(torch.uint8)


def unpack_bits(packed: Tensor, k: int) -> Tensor:
    """The inverse of `pack_bits`: (ceil(k/8),) uint8 -> (k,) bool."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed[:, None] >> places) & 1).reshape(-1)[:k].to(torch.bool)


def scatter_signs(negative: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(k,) bool and a (d,) bool mask with k true entries -> (d,) of -1, +1, and 0 where the mask is false."""
    signs = negative.to(dtype).mul_(-2).add_(1)
    if mask is None:
        return signs
    return torch.zeros(mask.numel(), dtype=dtype, device=mask.device).masked_scatter_(mask, signs)


_CHUNK = 1 << 16


def squared_norm(vector: Tensor) -> float:
    """||v||^2 of a vector (d,), its chunks added up in float64."""
    return math.fsum(float(torch.dot(chunk, chunk)) for chunk in torch.split(vector, _CHUNK))
