"""Packing codes of 1 .. 32 bits into a bit string, and unpacking them, one tile of 1,024 codes at a time.

For all kernels that make or read codes. Reference: `reference.fractional.pack_codes` and `unpack_codes`.
"""

from typing import Any

import numpy as np
from numba import uint8, uint16, uint32, uint64
from numpy.typing import NDArray

from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.llvm.vectors import compress, expand

Array = NDArray[Any]

TILE = 1024  # codes; so many fill full bytes, whatever their bits


LONG_TILE = 4 * TILE  # where a tile is passed from function to function, which costs as much as many elements


def code_buffer(bits: int, size: int = TILE) -> Array:
    """Return a buffer for a tile's codes: (size,) zeros of the narrowest type that holds codes of so many bits."""
    return np.zeros(size, np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


@kernel
def pack_tile(codes: Array, bits: int, packed: Array) -> None:
    """Pack codes, lowest bits first.

    Args:
        codes: A code_buffer, or the beginning of one, with 0 behind the last code.
        bits: Bits of a code.
        packed: (n,) uint8, overwritten.
    """
    if bits == 8:
        for i in range(packed.size):
            packed[i] = codes[i]
    elif bits == 4:
        pairs = codes.view(np.uint16)[: packed.size]
        for i in range(packed.size):
            packed[i] = uint8(pairs[i] | uint16(pairs[i] >> uint16(4)))
    elif bits == 2:
        fours = codes.view(np.uint32)[: packed.size]
        for i in range(packed.size):
            four = fours[i]
            four = uint32(four | uint32(four >> uint32(6)))
            packed[i] = uint8(four | uint32(four >> uint32(12)))
    elif bits == 1:
        eights = codes.view(np.uint64)[: packed.size]
        for i in range(packed.size):
            packed[i] = uint8((eights[i] * uint64(0x0102040810204080)) >> uint64(56))
    elif bits < 8:
        _pack_eights(codes, bits, packed)
    else:
        _pack_any(codes, bits, packed)


@kernel
def _pack_eights(codes: Array, bits: int, packed: Array) -> None:
    """Pack codes of 3, 5, 6 or 7 bits: eight codes fill `bits` bytes."""
    every, eights = _low_bits_of_bytes(bits), codes.view(np.uint64)
    at = 0
    for i in range(eights.size):
        if at >= packed.size:
            break
        word = compress(eights[i], every)
        for _ in range(min(bits, packed.size - at)):
            packed[at] = uint8(word)
            word >>= uint64(8)
            at += 1


@inlined
def _low_bits_of_bytes(bits: int) -> Any:  # noqa: ANN401 - uint64
    """Return a word whose `bits` lowest bits of each byte are set."""
    return ((uint64(1) << uint64(bits)) - uint64(1)) * uint64(0x0101010101010101)


@kernel
def _pack_any(codes: Array, bits: int, packed: Array) -> None:
    """Pack codes of more than 8 bits, through a word that holds the bits of no full byte yet."""
    pending = uint64(0)
    n_pending = 0
    at = 0
    for i in range(codes.size):
        pending |= uint64(codes[i]) << uint64(n_pending)
        n_pending += bits
        while n_pending >= 8 and at < packed.size:
            packed[at] = uint8(pending)
            at += 1
            pending >>= uint64(8)
            n_pending -= 8
        if at == packed.size:
            break


@kernel
def unpack_tile(packed: Array, bits: int, codes: Array) -> None:
    """Invert `pack_tile`.

    Args:
        packed: (n,) uint8.
        bits: Bits of a code.
        codes: A code_buffer, overwritten with as many codes as fit into it and are complete in `packed`.
    """
    if bits == 8:
        for i in range(packed.size):
            codes[i] = packed[i]
    elif bits == 4:
        pairs = codes.view(np.uint16)[: packed.size]
        for i in range(packed.size):
            pair = uint16(packed[i])
            pairs[i] = uint16(uint16(pair | uint16(pair << uint16(4))) & uint16(0x0F0F))
    elif bits == 2:
        fours = codes.view(np.uint32)[: packed.size]
        for i in range(packed.size):
            four = uint32(packed[i])
            four = uint32(four | uint32(four << uint32(12)))
            fours[i] = uint32(four | uint32(four << uint32(6))) & uint32(0x03030303)
    elif bits == 1:
        eights = codes.view(np.uint64)[: packed.size]
        for i in range(packed.size):
            seven = uint64(packed[i] & uint8(127)) * uint64(0x0002040810204081)
            eights[i] = (seven | uint64(packed[i] >> uint8(7)) << uint64(56)) & uint64(0x0101010101010101)
    elif bits < 8:
        _unpack_eights(packed, bits, codes)
    else:
        _unpack_any(packed, bits, codes)


@kernel
def _unpack_eights(packed: Array, bits: int, codes: Array) -> None:
    """Unpack codes of 3, 5, 6 or 7 bits: `bits` bytes hold eight codes."""
    every, eights = _low_bits_of_bytes(bits), codes.view(np.uint64)
    for i in range((packed.size + bits - 1) // bits):
        word = uint64(0)
        for j in range(min(bits, packed.size - i * bits)):
            word |= uint64(packed[i * bits + j]) << uint64(8 * j)
        eights[i] = expand(word, every)


@kernel
def _unpack_any(packed: Array, bits: int, codes: Array) -> None:
    """Unpack codes of more than 8 bits."""
    pending = uint64(0)
    n_pending = 0
    at = 0
    below = (uint64(1) << uint64(bits)) - uint64(1)
    for i in range(codes.size):
        while n_pending < bits and at < packed.size:
            pending |= uint64(packed[at]) << uint64(n_pending)
            at += 1
            n_pending += 8
        if n_pending < bits:
            break
        codes[i] = pending & below
        pending >>= uint64(bits)
        n_pending -= bits
