"""Packed codes on a GPU, and how other kernels write and read them.

Reference: `reference.fractional.pack_codes` and `unpack_codes`. Eight codes of b bits fill b bytes, so no two blocks
of elements share a byte.
"""

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.gpu.compile import blocks_of, kernel, launch

BLOCK = 1024  # elements; a multiple of 8


def packed_like(values: Tensor, count: int, bits: int) -> Tensor:
    """Return a buffer for `count` codes on the device of `values`: (ceil(bits count / 8),) uint8."""
    return torch.empty(blocks_of(bits * count, 8), dtype=torch.uint8, device=values.device)


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """See `reference.fractional.pack_codes`."""
    packed = packed_like(codes, len(codes), bits)
    launch(_pack, blocks_of(len(codes), BLOCK), codes.contiguous(), len(codes), packed, BITS=bits, BLOCK=BLOCK)
    return packed


def unpack_codes(packed: Tensor, k: int, bits: int) -> Tensor:
    """See `reference.fractional.unpack_codes`."""
    codes = torch.empty(k, dtype=torch.int32, device=packed.device)
    launch(_unpack, blocks_of(k, BLOCK), packed.contiguous(), k, codes, BITS=bits, BLOCK=BLOCK)
    return codes


@kernel
def store_codes(codes: tl.tensor, packed: tl.tensor, count: tl.tensor, BITS: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """Write this block's codes (BLOCK,) int32; those behind the last of `count` must be 0."""
    rows = tl.reshape(codes, [BLOCK // 8, 8])
    lanes = tl.arange(0, 8)[None, :]
    row = tl.program_id(0).to(tl.int64) * (BLOCK // 8) + tl.arange(0, BLOCK // 8)
    n_bytes = (BITS * count + 7) // 8
    if BITS <= 8:  # eight codes fit one word
        words = tl.sum(rows.to(tl.int64) << (BITS * lanes), 1)
        for byte in tl.static_range(BITS):
            at = row * BITS + byte
            tl.store(packed + at, ((words >> (8 * byte)) & 255).to(tl.uint8), mask=at < n_bytes)
    else:
        for byte in tl.static_range(BITS):
            up = BITS * lanes - 8 * byte  # how far a code's lowest bit is above this byte's
            high = rows << tl.where((up >= 0) & (up < 8), up, 0)
            low = rows >> tl.where((up < 0) & (up > -BITS), -up, 0)
            part = tl.where((up >= 0) & (up < 8), high, tl.where((up < 0) & (up > -BITS), low, 0)) & 255
            at = row * BITS + byte
            tl.store(packed + at, tl.sum(part, 1).to(tl.uint8), mask=at < n_bytes)


@kernel
def load_codes(packed: tl.tensor, at: tl.tensor, count: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """Return the codes of the elements `at` (n,) int64: (n,) int32, 0 behind the last one."""
    bit = at * BITS
    shift = (bit & 7).to(tl.int64)
    n_bytes = (BITS * count + 7) // 8
    codes = shift * 0
    for byte in tl.static_range((BITS + 14) // 8):
        place = (bit >> 3) + byte
        codes |= tl.load(packed + place, mask=(at < count) & (place < n_bytes), other=0).to(tl.int64) << (8 * byte)
    return ((codes >> shift) & ((1 << BITS) - 1)).to(tl.int32)


@kernel
def _pack(
    codes: tl.tensor, count: tl.int64, packed: tl.tensor, BITS: tl.constexpr, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    store_codes(tl.load(codes + at, mask=at < count, other=0), packed, count, BITS, BLOCK)


@kernel
def _unpack(
    packed: tl.tensor, count: tl.int64, codes: tl.tensor, BITS: tl.constexpr, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(codes + at, load_codes(packed, at, count, BITS), mask=at < count)
