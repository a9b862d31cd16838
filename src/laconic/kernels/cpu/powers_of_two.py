"""Powers of two, and short mantissas, as codes of sign and exponent, compiled, tile by tile: the same bits.

Reference: `reference/powers_of_two.py`.

Codes of 9 bits (float32) are brought together four to a word, then 64 of them make nine words. Codes of 12 bits
(float64) go through `cpu/code_tiles.py`.
"""

from typing import Any

import numpy as np
import torch
from numba import uint16, uint32, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.buffer_pool import new_vector
from laconic.kernels.cpu.code_tiles import TILE, code_buffer, pack_tile, unpack_tile
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.hashing import hash32
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference.hashing import key_words
from laconic.kernels.reference.powers_of_two import EXPONENT_BITS

Array = NDArray[Any]

_NUMBERS = np.arange(TILE, dtype=np.uint32)
_PATTERNS = {torch.float32: np.uint32, torch.float64: np.uint64}


def power_codes(values: Tensor, offset: int, key: int) -> tuple[Tensor, bool]:
    """See `reference.powers_of_two.power_codes`."""
    bits, d = EXPONENT_BITS[values.dtype], values.numel()
    patterns = values.detach().contiguous().numpy().view(_PATTERNS[values.dtype])
    packed = torch.empty(-(-d // TILE) * TILE * bits // 8, dtype=torch.uint8)
    out = packed.numpy()
    low, high = map(np.uint32, key_words(key))
    non_finite: list[bool] = []

    def run(start: int, stop: int) -> None:
        if bits == 9:
            codes, words = np.empty(TILE, np.uint32), out.view(np.uint64)
            wrong = _powers_32(patterns, offset, low, high, _NUMBERS, codes, words, start, stop)
        else:
            wrong = _powers_64(patterns, offset, low, high, code_buffer(bits), out, start, stop)
        non_finite.append(bool(wrong))

    in_chunks(d, run)
    return packed[: (bits * d + 7) // 8], not any(non_finite)


def short_codes(values: Tensor, mantissa_bits: int) -> tuple[Tensor, Tensor, bool]:
    """See `reference.powers_of_two.short_codes`."""
    bits, d = EXPONENT_BITS[values.dtype], values.numel()
    patterns = values.detach().contiguous().numpy().view(_PATTERNS[values.dtype])
    packed = new_vector(-(-d // TILE) * TILE * bits // 8, torch.uint8)
    tails = new_vector((mantissa_bits * d + 7) // 8, torch.uint8)
    out, out_tails = packed.numpy(), tails.numpy()
    non_finite: list[bool] = []

    def run(start: int, stop: int) -> None:
        codes = np.empty(TILE, np.uint32) if bits == 9 else code_buffer(bits)
        shorten = _shorten_32 if bits == 9 else _shorten_64
        words = out.view(np.uint64) if bits == 9 else out
        wrong = shorten(patterns, mantissa_bits, codes, code_buffer(mantissa_bits), words, out_tails, start, stop)
        non_finite.append(bool(wrong))

    in_chunks(d, run)
    return packed[: (bits * d + 7) // 8], tails, not any(non_finite)


def put_powers(packed: Tensor, out: Tensor, tails: Tensor | None = None, mantissa_bits: int = 0) -> None:
    """See `reference.powers_of_two.put_powers`."""
    _write(packed, tails, mantissa_bits, out, times=0)


def add_powers(
    packed: Tensor, total: Tensor, tails: Tensor | None = None, mantissa_bits: int = 0, *, subtract: bool = False
) -> None:
    """See `reference.powers_of_two.add_powers`."""
    _write(packed, tails, mantissa_bits, total, times=-1 if subtract else 1)


def _write(packed: Tensor, tails: Tensor | None, mantissa_bits: int, total: Tensor, *, times: int) -> None:
    bits, data = EXPONENT_BITS[total.dtype], packed.contiguous().numpy()
    out = total.detach().numpy()
    sign = out.dtype.type(times)
    more, n = (data[:0], 0) if tails is None else (tails.contiguous().numpy(), mantissa_bits)

    def run(start: int, stop: int) -> None:
        patterns = np.empty(TILE * out.itemsize // 8, np.uint64)
        powers, low = patterns.view(out.dtype), code_buffer(n)
        if bits == 9:
            _write_32(data, more, n, low, patterns, powers, out, sign, start, stop)
        else:
            _write_64(data, more, n, low, code_buffer(bits), patterns, powers, out, sign, start, stop)

    in_chunks(len(out), run)


def powers_finite(packed: Tensor, count: int, dtype: torch.dtype) -> bool:
    """See `reference.powers_of_two.powers_finite`."""
    bits, data = EXPONENT_BITS[dtype], packed.contiguous().numpy()
    non_finite: list[bool] = []

    def run(start: int, stop: int) -> None:
        wrong = _non_finite_32(data, start, stop) if bits == 9 else _non_finite_64(data, code_buffer(bits), start, stop)
        non_finite.append(bool(wrong))

    in_chunks(count, run)
    return not any(non_finite)


@kernel
def _powers_32(
    patterns: Array, offset: int, low: Any, high: Any, within: Array, codes: Array, words: Array, start: int, stop: int,  # noqa: ANN401
) -> bool:  # fmt: skip
    """Write codes of float32 elements start .. stop - 1, 9 bits each.

    Args:
        patterns: (d,) uint32, bits of the values.
        offset: Number of the vector's first coordinate.
        low: uint32, the low half of the mixed key.
        high: uint32, the high half of the mixed key.
        within: 0, 1, 2 .. TILE - 1; reading them is cheaper than counting.
        codes: (TILE,) uint32, a buffer.
        words: uint64, overwritten.
        start: First element, the beginning of a tile.
        stop: Index behind the last element.

    Returns:
        Whether an element is inf or NaN.
    """
    non_finite = False
    fours = np.empty(TILE // 4, np.uint64)
    for tile in range(start, stop, TILE):
        part = patterns[tile : min(tile + TILE, stop)]
        _draw_32(part, uint32(offset + tile), low, high, within, codes)
        codes[part.size :] = 0
        _pack_nines(codes.view(np.uint64), fours, words[tile * 9 // 64 : (tile + TILE) * 9 // 64])
        non_finite |= _nines_non_finite(fours)
    return non_finite


@kernel
def _draw_32(part: Array, base: Any, low: Any, high: Any, within: Array, codes: Array) -> None:  # noqa: ANN401
    """Write codes of sign and exponent, the exponent raised by 1 with the mantissa as probability."""
    for i in range(part.size):
        x = hash32(uint32(base + within[i]), low, high)
        sign_exponent = uint32(part[i] >> uint32(23))
        exponent = uint32(sign_exponent & uint32(255))
        rises = (x < uint32(part[i] << uint32(9))) & (exponent < uint32(254))
        codes[i] = uint32(sign_exponent + (uint32(1) if rises else uint32(0)))


@kernel
def _shorten_32(
    patterns: Array, mantissa_bits: int, codes: Array, low: Array, words: Array, tails: Array, start: int, stop: int
) -> bool:  # fmt: skip
    """Write codes and tails of float32 elements start .. stop - 1. Arguments as for `_powers_32`.

    Args:
        mantissa_bits: Bits of a tail.
        low: A code_buffer for tails.
        tails: uint8, overwritten.
    """
    non_finite = False
    fours, shift = np.empty(TILE // 4, np.uint64), uint32(23 - mantissa_bits)
    for tile in range(start, stop, TILE):
        part = patterns[tile : min(tile + TILE, stop)]
        for i in range(part.size):
            codes[i] = uint32(part[i] >> uint32(23))
        codes[part.size :] = 0
        _pack_nines(codes.view(np.uint64), fours, words[tile * 9 // 64 : (tile + TILE) * 9 // 64])
        non_finite |= _nines_non_finite(fours)
        if mantissa_bits:
            below = uint32((uint32(1) << uint32(mantissa_bits)) - uint32(1))
            for i in range(part.size):
                low[i] = uint32(uint32(part[i] >> shift) & below)
            _pack_tails(low, part.size, mantissa_bits, tails, tile)
    return non_finite


@kernel
def _pack_tails(low: Array, n: int, bits: int, tails: Array, tile: int) -> None:
    """Pack the n tails of a tile."""
    low[n:] = 0
    pack_tile(low, bits, tails[tile * bits // 8 : ((tile + n) * bits + 7) // 8])


@kernel
def _pack_nines(twos: Array, fours: Array, words: Array) -> None:
    """Pack a tile's codes, two to a word, by way of four to a word, into nine words for 64 of them."""
    for i in range(fours.size):
        low, high = twos[2 * i], twos[2 * i + 1]
        low = (low | (low >> uint64(23))) & uint64(0x3FFFF)
        high = (high | (high >> uint64(23))) & uint64(0x3FFFF)
        fours[i] = low | (high << uint64(18))
    for group in range(words.size // 9):
        carry = uint64(0)
        pairs, out = fours[16 * group : 16 * group + 16], words[9 * group : 9 * group + 9]
        for j in range(8):
            shift = uint64(8 * j)
            below = pairs[2 * j] | (pairs[2 * j + 1] << uint64(36))
            out[j] = (below << shift) | carry
            carry = ((below >> (uint64(56) - shift)) >> uint64(8)) | ((pairs[2 * j + 1] >> uint64(28)) << shift)
        out[8] = carry


@kernel
def _unpack_nines(words: Array, fours: Array) -> None:
    """Unpack nine words for 64 codes into the lowest 36 bits of a word for four of them."""
    for group in range(words.size // 9):
        pairs, given = fours[16 * group : 16 * group + 16], words[9 * group : 9 * group + 9]
        for j in range(8):
            shift = uint64(8 * j)
            below = (given[j] >> shift) | ((given[j + 1] << (uint64(56) - shift)) << uint64(8))
            pairs[2 * j] = below & uint64(0xFFFFFFFFF)
            pairs[2 * j + 1] = (below >> uint64(36)) | (((given[j + 1] >> shift) & uint64(255)) << uint64(28))


@kernel
def _nines_as_patterns(fours: Array, twos: Array) -> None:
    """Turn four codes to a word into bits of float32, two to a word."""
    for i in range(fours.size):
        low, high = fours[i], fours[i] >> uint64(18)
        twos[2 * i] = ((low & uint64(0x1FF)) << uint64(23)) | ((low & uint64(0x3FE00)) << uint64(46))
        twos[2 * i + 1] = ((high & uint64(0x1FF)) << uint64(23)) | ((high & uint64(0x3FE00)) << uint64(46))


@kernel
def _nines_non_finite(fours: Array) -> bool:
    """Return whether an exponent has all bits set: adding 1 to it carries into the sign's bit."""
    carried = uint64(0)
    for i in range(fours.size):
        carried |= (fours[i] & uint64(0x7FBFDFEFF)) + uint64(0x8040201)
    return bool(carried & uint64(0x804020100))


@kernel
def _powers_64(
    patterns: Array, offset: int, low: Any, high: Any, codes: Array, packed: Array, start: int, stop: int,  # noqa: ANN401
) -> bool:  # fmt: skip
    """Write codes of float64 elements start .. stop - 1, 12 bits each. Returns whether an element is inf or NaN."""
    non_finite = False
    for tile in range(start, stop, TILE):
        part = patterns[tile : min(tile + TILE, stop)]
        for i in range(part.size):
            x = hash32(uint32(offset + tile + i), low, high)
            exponent = (part[i] >> uint64(52)) & uint64(2047)
            up = (uint64(x) << uint64(32)) < (part[i] << uint64(12)) and exponent < uint64(2046)
            codes[i] = uint16((part[i] >> uint64(52)) + uint64(up))
            non_finite |= exponent == uint64(2047)
        codes[part.size :] = 0
        pack_tile(codes, 12, packed[tile * 12 // 8 : (tile + TILE) * 12 // 8])
    return non_finite


@kernel
def _shorten_64(
    patterns: Array, mantissa_bits: int, codes: Array, low: Array, packed: Array, tails: Array, start: int, stop: int
) -> bool:  # fmt: skip
    """Write codes, 12 bits each, and tails of float64 elements start .. stop - 1. Arguments as for `_shorten_32`."""
    non_finite = False
    shift, below = uint64(52 - mantissa_bits), (uint64(1) << uint64(mantissa_bits)) - uint64(1)
    for tile in range(start, stop, TILE):
        part = patterns[tile : min(tile + TILE, stop)]
        for i in range(part.size):
            codes[i] = uint16(part[i] >> uint64(52))
            non_finite |= (codes[i] & uint16(2047)) == uint16(2047)
        codes[part.size :] = 0
        pack_tile(codes, 12, packed[tile * 12 // 8 : (tile + TILE) * 12 // 8])
        if mantissa_bits:
            for i in range(part.size):
                low[i] = uint32((part[i] >> shift) & below)
            _pack_tails(low, part.size, mantissa_bits, tails, tile)
    return non_finite


@kernel
def _words_of(data: Array, words: Array) -> None:
    """Copy the bytes of a tile, or of what is left, into words, with zeros behind them."""
    buffer = words.view(np.uint8)
    for i in range(data.size):
        buffer[i] = data[i]
    buffer[data.size :] = 0


@kernel
def _write_32(
    packed: Array, tails: Array, mantissa_bits: int, low: Array, patterns: Array, powers: Array, total: Array,
    sign: Any, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write or add float32 values of codes.

    Args:
        packed: The codes.
        tails: The first bits of mantissas.
        mantissa_bits: Bits of a tail; 0 where there are none.
        low: A code_buffer for tails.
        patterns: A buffer for a tile, as words.
        powers: The same, as floats.
        total: (d,), changed in place.
        sign: As for `_put_or_add`.
        start: First element, the beginning of a tile.
        stop: Index behind the last element.
    """
    words, fours = np.empty(TILE * 9 // 64, np.uint64), np.empty(TILE // 4, np.uint64)
    pairs, shift = patterns.view(np.uint32), uint32(23 - mantissa_bits)
    for tile in range(start, stop, TILE):
        _words_of(packed[tile * 9 // 8 : (tile + TILE) * 9 // 8], words)
        _unpack_nines(words, fours)
        _nines_as_patterns(fours, patterns)
        if mantissa_bits:
            last = min(tile + TILE, stop)
            unpack_tile(tails[tile * mantissa_bits // 8 : (last * mantissa_bits + 7) // 8], mantissa_bits, low)
            for i in range(last - tile):
                pairs[i] |= uint32(uint32(low[i]) << shift)
        _put_or_add(powers, total[tile : min(tile + TILE, stop)], sign)


@kernel
def _write_64(
    packed: Array, tails: Array, mantissa_bits: int, low: Array, codes: Array, patterns: Array, powers: Array,
    total: Array, sign: Any, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write or add float64 values of codes. Arguments as for `_write_32`, and a code_buffer."""
    shift = uint64(52 - mantissa_bits)
    for tile in range(start, stop, TILE):
        unpack_tile(packed[tile * 12 // 8 : (tile + TILE) * 12 // 8], 12, codes)
        for i in range(TILE):
            patterns[i] = uint64(codes[i]) << uint64(52)
        if mantissa_bits:
            last = min(tile + TILE, stop)
            unpack_tile(tails[tile * mantissa_bits // 8 : (last * mantissa_bits + 7) // 8], mantissa_bits, low)
            for i in range(last - tile):
                patterns[i] |= uint64(low[i]) << shift
        _put_or_add(powers, total[tile : min(tile + TILE, stop)], sign)


@kernel
def _put_or_add(powers: Array, out: Array, sign: Any) -> None:  # noqa: ANN401
    """Copy `powers` to `out`, or add them. sign: 1 to add, -1 to subtract, 0 to overwrite; of the powers' type."""
    if sign == 0:
        for i in range(out.size):
            out[i] = powers[i]
    else:
        for i in range(out.size):
            out[i] += sign * powers[i]


@kernel
def _non_finite_32(packed: Array, start: int, stop: int) -> bool:
    """Return whether a code of 9 bits stands for inf or NaN."""
    words, fours = np.empty(TILE * 9 // 64, np.uint64), np.empty(TILE // 4, np.uint64)
    non_finite = False
    for tile in range(start, stop, TILE):
        _words_of(packed[tile * 9 // 8 : (tile + TILE) * 9 // 8], words)
        _unpack_nines(words, fours)
        non_finite |= _nines_non_finite(fours)
    return non_finite


@kernel
def _non_finite_64(packed: Array, codes: Array, start: int, stop: int) -> bool:
    """Return whether a code of 12 bits stands for inf or NaN."""
    non_finite = False
    for tile in range(start, stop, TILE):
        unpack_tile(packed[tile * 12 // 8 : (tile + TILE) * 12 // 8], 12, codes)
        for i in range(min(TILE, stop - tile)):
            non_finite |= (codes[i] & 2047) == 2047
    return non_finite
