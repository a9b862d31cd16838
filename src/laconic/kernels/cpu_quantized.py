"""`plain_quantized` in machine code: bit for bit the same but for `norms`, the same operations in the same order.

Entries go through in tiles: codes of a tile, one byte each, and then their bits (or the other way round). Loops are
over slices of one type from 0 on, which become vector instructions.
"""

from typing import Any

import numpy as np
import torch
from numba import int32, uint32
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels import plain_quantized
from laconic.kernels.compiled import kernel
from laconic.kernels.cpu_codes import TILE, pack_tile, unpack_tile
from laconic.kernels.plain import key_halves
from laconic.kernels.plain_quantized import FRACTION_BITS, TINY_BITS, level_bits
from laconic.kernels.threads import in_chunks

Array = NDArray[Any]

_NUMBERS = np.arange(TILE, dtype=np.uint32)
_FLOATS = {torch.float32: np.float32, torch.float64: np.float64}


def quantize(
    values: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, first: int, key: int
) -> Tensor:
    """See plain_quantized."""
    most = (1 << bits) - 1
    return _quantized(values, lows.to(values.dtype).numpy(), highs, lengths, bits, most, 0, first, key)


def quantize_levels(
    values: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, first: int, key: int
) -> Tensor:
    """See plain_quantized."""
    bits = level_bits(steps)
    lows = np.zeros(len(lengths), _FLOATS[values.dtype])
    return _quantized(values, lows, scales, lengths, bits, steps, 1 << (bits - 1), first, key)


def _quantized(
    values: Tensor, lows: Array, highs: Tensor, lengths: tuple[int, ...], bits: int, most: int, minus: int, first: int,
    key: int,
) -> Tensor:  # fmt: skip
    packed = torch.empty((bits * len(values) + 7) // 8, dtype=torch.uint8)
    floats, out = values.detach().contiguous().numpy(), packed.numpy()
    highs_, edges = highs.to(values.dtype).numpy(), _edges(lengths)
    numbers = _constants(values.dtype, most << FRACTION_BITS)
    keys = tuple(map(np.uint32, key_halves(key)))
    code_type = np.uint8 if bits <= 8 else np.uint16

    def run(start: int, stop: int) -> None:
        codes = np.zeros(TILE, code_type)
        _quantize(
            floats, lows, highs_, edges, numbers, bits, np.uint32(minus), first, *keys, _NUMBERS, codes, out,
            start, stop,
        )  # fmt: skip

    in_chunks(len(values), run)
    return packed


def dequantize(packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int) -> Tensor:
    """See plain_quantized."""
    return _dense(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0)


def add_dequantized(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, total: Tensor
) -> None:
    """See plain_quantized."""
    _add(packed, lows, highs, lengths, bits, (1 << bits) - 1, 0, total)


def levels_dense(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int) -> Tensor:
    """See plain_quantized."""
    bits = level_bits(steps)
    return _dense(packed, torch.zeros_like(scales), scales, lengths, bits, steps, 1 << (bits - 1))


def add_levels(packed: Tensor, scales: Tensor, lengths: tuple[int, ...], steps: int, total: Tensor) -> None:
    """See plain_quantized."""
    bits = level_bits(steps)
    _add(packed, torch.zeros_like(scales), scales, lengths, bits, steps, 1 << (bits - 1), total)


def _dense(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, most: int, minus: int
) -> Tensor:
    dtype = torch.promote_types(lows.dtype, torch.float32)  # numpy has no bfloat16
    dense = torch.empty(sum(lengths), dtype=dtype)
    _write(packed, lows.to(dtype), highs.to(dtype), lengths, bits, most, minus, dense, add=False)
    return dense.to(lows.dtype)


def _add(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, most: int, minus: int,
    total: Tensor,
) -> None:  # fmt: skip
    if lows.dtype in _FLOATS and total.dtype in _FLOATS and total.is_contiguous():
        _write(packed, lows, highs, lengths, bits, most, minus, total, add=True)
    else:
        total.add_(_dense(packed, lows, highs, lengths, bits, most, minus))


def _write(
    packed: Tensor, lows: Tensor, highs: Tensor, lengths: tuple[int, ...], bits: int, most: int, minus: int,
    total: Tensor, *, add: bool,
) -> None:  # fmt: skip
    data, out, edges = packed.contiguous().numpy(), total.numpy(), _edges(lengths)
    lows_, highs_, numbers = lows.contiguous().numpy(), highs.contiguous().numpy(), _constants(lows.dtype, most)
    code_type = np.uint8 if bits <= 8 else np.uint16

    def run(start: int, stop: int) -> None:
        codes = np.zeros(TILE, code_type)
        _dequantize(
            data, lows_, highs_, edges, numbers, bits, int32(most), int32(minus), codes, out, start, stop, add
        )

    in_chunks(total.numel(), run)


def levels_allowed(packed: Tensor, count: int, steps: int) -> bool:
    """See plain_quantized."""
    bits = level_bits(steps)
    codes = np.zeros(TILE, np.uint8 if bits <= 8 else np.uint16)
    return bool(_allowed(packed.contiguous().numpy(), count, bits, uint32(steps), codes))


def ranges(values: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """See plain_quantized."""
    keys, pieces, owners = _measured(values, lengths)
    lows = np.full(len(lengths), np.iinfo(keys.dtype).max, keys.dtype)
    highs = np.full(len(lengths), np.iinfo(keys.dtype).min, keys.dtype)
    low_parts, high_parts = np.empty(len(pieces) - 1, keys.dtype), np.empty(len(pieces) - 1, keys.dtype)
    mask = keys.dtype.type(np.iinfo(keys.dtype).max)
    in_chunks(
        len(pieces) - 1, lambda start, stop: _ranges(keys, pieces, mask, low_parts, high_parts, start, stop), keys.size
    )
    np.minimum.at(lows, owners, low_parts)
    np.maximum.at(highs, owners, high_parts)
    made = (np.where(each < 0, each ^ mask, each).view(_FLOATS[values.dtype]) for each in (lows, highs))
    low, high = (torch.from_numpy(each) for each in made)
    return low, high


def peaks(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See plain_quantized."""
    keys, pieces, owners = _measured(values, lengths)
    mask = keys.dtype.type(np.iinfo(keys.dtype).max)
    parts = np.empty(len(pieces) - 1, keys.dtype)
    in_chunks(len(pieces) - 1, lambda start, stop: _peaks(keys, pieces, mask, parts, start, stop), keys.size)
    found = np.zeros(len(lengths), keys.dtype)
    np.maximum.at(found, owners, parts)
    return torch.from_numpy(found.view(_FLOATS[values.dtype]))


def norms(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """See plain_quantized."""
    largest = peaks(values, lengths)
    keys, pieces, owners = _measured(values, lengths)
    exponents = np.zeros(len(lengths), np.int64)
    if values.dtype == torch.float64:  # whose squares might overflow or vanish; those of float32 are float64 here
        exponents = np.clip(np.frexp(np.nan_to_num(largest.numpy()))[1].astype(np.int64), -1000, 1000)
    parts = np.empty(len(pieces) - 1)
    floats = keys.view(_FLOATS[values.dtype])
    factors = np.ldexp(1.0, -exponents)
    in_chunks(
        len(pieces) - 1,
        lambda start, stop: _squares(floats, pieces, factors, owners, np.zeros(_LANES), parts, start, stop), keys.size,
    )  # fmt: skip
    sums = np.zeros(len(lengths))
    np.add.at(sums, owners, parts)
    with np.errstate(over="ignore"):  # a norm may be more than a float64 holds: it is inf then
        found = np.ldexp(np.sqrt(sums), exponents)
    return torch.from_numpy(found).to(values.dtype).maximum(largest)


_LANES = 32  # chains of additions at a time
_PIECE = 1 << 14  # entries added up or compared at a time, whatever the number of threads


def _measured(values: Tensor, lengths: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """The values' bits, the edges of pieces of blocks (n + 1,), and the blocks that the pieces are of (n,)."""
    keys = values.detach().contiguous().numpy().view(np.int32 if values.dtype == torch.float32 else np.int64)
    edges = _edges(lengths)
    if max(lengths) <= _PIECE:
        return keys, edges, np.arange(len(lengths))
    n_pieces = -(-np.diff(edges) // _PIECE)
    owners = np.repeat(np.arange(len(lengths)), n_pieces)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(n_pieces) - n_pieces, n_pieces)
    return keys, np.append(edges[owners] + within * _PIECE, edges[-1]), owners


def _edges(lengths: tuple[int, ...]) -> Array:
    """Where each block begins, and where the last one ends: (blocks + 1,) int64."""
    edges = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=edges[1:])
    return edges


def _constants(dtype: torch.dtype, most: int) -> Array:
    """What kernels need in the values' own type, so that no operation becomes one of float64."""
    floats = _FLOATS[dtype]
    tiny = 2.0 ** TINY_BITS[dtype]
    return np.array([most, 0.0, 1.0, 0.5, 1 / tiny, tiny, 1 + np.finfo(floats).eps, 2.0], floats)


@kernel
def _factor(low: Any, high: Any, numbers: Array) -> Any:  # noqa: ANN401 - numba's own scalars
    """plain_quantized.range_factors of one block."""
    span = high - low
    if not np.isfinite(span):
        return numbers[3]
    return numbers[5] if numbers[1] < span < numbers[4] else numbers[2]


@kernel
def _block_at(edges: Array, entry: int) -> int:
    """The block that an entry is in."""
    low, high = 0, edges.size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if edges[middle] <= entry:
            low = middle
        else:
            high = middle
    return low


@kernel
def _quantize(
    values: Array, lows: Array, highs: Array, edges: Array, numbers: Array, bits: int, minus: Any, first: int,  # noqa: ANN401
    low_key: Any, high_key: Any, within: Array, codes: Array, packed: Array, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """minus: the bit of a code that says below zero; 0 where values are not measured from zero. start: of a tile."""
    room = np.empty(codes.size, values.dtype)
    top = numbers[0]
    block = _block_at(edges, start)
    for tile in range(start, stop, codes.size):
        end = min(tile + codes.size, stop)
        at = tile
        while at < end:
            until = min(end, edges[block + 1])
            low, high = lows[block], highs[block]
            factor = _factor(low, high, numbers)
            bottom = low * factor
            span = high * factor - bottom
            step = top / span
            if span * step < top:
                step = step * numbers[6]
            part = values[at:until]
            if factor != numbers[2]:
                for i in range(part.size):
                    room[i] = part[i] * factor
                part = room[: part.size]
            base = uint32(first + at)
            if minus:
                _draw_levels(part, step, top, numbers[1], minus, base, low_key, high_key, within, codes[at - tile :])
            else:
                _draw(part, bottom, step, top, numbers[1], base, low_key, high_key, within, codes[at - tile :])
            at = until
            if until == edges[block + 1]:
                block += 1
        codes[end - tile :] = 0
        pack_tile(codes, bits, packed[tile * bits // 8 : (end * bits + 7) // 8])


@kernel
def _hash(x: Any, low_key: Any, high_key: Any) -> Any:  # noqa: ANN401
    """plain.hash32 of one coordinate."""
    x = uint32(x ^ low_key)
    x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(0x7FEB352D))
    x = uint32(x ^ uint32(x >> uint32(15)))
    x = uint32(uint32(x + high_key) * uint32(0x846CA68B))
    return uint32(x ^ uint32(x >> uint32(16)))


@kernel
def _draw(
    part: Array, bottom: Any, step: Any, top: Any, zero: Any, base: Any, low_key: Any, high_key: Any,  # noqa: ANN401
    within: Array, codes: Array,
) -> None:  # fmt: skip
    """Codes of entries of one block and tile. `within` is 0, 1, 2 .. : reading it is cheaper than counting."""
    for i in range(part.size):
        place = (part[i] - bottom) * step
        place = place if place > zero else zero  # NaN too
        place = place if place < top else top
        drawn = uint32(_hash(uint32(base + within[i]), low_key, high_key) >> uint32(32 - FRACTION_BITS))
        codes[i] = uint32(uint32(uint32(int32(place)) + drawn) >> uint32(FRACTION_BITS))


@kernel
def _draw_levels(
    part: Array, step: Any, top: Any, zero: Any, minus: Any, base: Any, low_key: Any, high_key: Any,  # noqa: ANN401
    within: Array, codes: Array,
) -> None:  # fmt: skip
    for i in range(part.size):
        place = abs(part[i]) * step
        place = place if place > zero else zero  # NaN too
        place = place if place < top else top
        drawn = uint32(_hash(uint32(base + within[i]), low_key, high_key) >> uint32(32 - FRACTION_BITS))
        level = uint32(uint32(uint32(int32(place)) + drawn) >> uint32(FRACTION_BITS))
        sign = minus if part[i] < zero else uint32(0)
        codes[i] = uint32(level | (sign if level > uint32(0) else uint32(0)))


@kernel
def _dequantize(
    packed: Array, lows: Array, highs: Array, edges: Array, numbers: Array, bits: int, most: Any, minus: Any,  # noqa: ANN401
    codes: Array, total: Array, start: int, stop: int, add: bool,
) -> None:  # fmt: skip
    block = _block_at(edges, start)
    room = np.empty(codes.size, lows.dtype)
    for tile in range(start, stop, codes.size):
        end = min(tile + codes.size, stop)
        unpack_tile(packed[tile * bits // 8 : (end * bits + 7) // 8], bits, codes)
        at = tile
        while at < end:
            until = min(end, edges[block + 1])
            low, high = lows[block], highs[block]
            factor = _factor(low, high, numbers)
            bottom = low * factor
            step = (high * factor - bottom) / numbers[0]
            here, part = room[: until - at], codes[at - tile : until - tile]
            _knobs(part, bottom, step, numbers[2] / factor, high, most, minus, numbers[1], here)
            out = total[at:until]
            if add:
                for i in range(out.size):
                    out[i] += here[i]
            else:
                for i in range(out.size):
                    out[i] = here[i]
            at = until
            if until == edges[block + 1]:
                block += 1


@kernel
def _knobs(
    codes: Array, bottom: Any, step: Any, unfactor: Any, high: Any, most: Any, minus: Any, zero: Any, knobs: Array  # noqa: ANN401
) -> None:  # fmt: skip
    """What codes of one block stand for, into `knobs`; see plain_quantized.knobs."""
    if minus:
        for i in range(codes.size):
            level = int32(int32(codes[i]) & int32(minus - int32(1)))
            knob = (knobs.dtype.type(level) * step + bottom) * unfactor
            knob = (knob if knob < high else high) if level != most else high
            knob = knob + zero
            knobs[i] = -knob if int32(codes[i]) >= minus else knob
    else:
        for i in range(codes.size):
            code = int32(codes[i])
            knob = (knobs.dtype.type(code) * step + bottom) * unfactor
            knob = (knob if knob < high else high) if code != most else high
            knobs[i] = knob + zero


@kernel
def _allowed(packed: Array, count: int, bits: int, steps: Any, codes: Array) -> bool:  # noqa: ANN401
    top = uint32(1 << (bits - 1))
    wrong = uint32(0)
    for tile in range(0, count, codes.size):
        end = min(tile + codes.size, count)
        unpack_tile(packed[tile * bits // 8 : (end * bits + 7) // 8], bits, codes)
        for i in range(end - tile):
            code = uint32(codes[i])
            wrong |= uint32(uint32(code & uint32(top - uint32(1))) > steps) | uint32(code == top)
    return wrong == uint32(0)


@kernel
def _ranges(keys: Array, pieces: Array, mask: Any, lows: Array, highs: Array, start: int, stop: int) -> None:  # noqa: ANN401
    """Bits in the order of the floats: those below zero have all but their sign turned over."""
    zero = mask - mask
    for piece in range(start, stop):
        part = keys[pieces[piece] : pieces[piece + 1]]
        low, high = mask, ~mask
        for i in range(part.size):
            key = part[i] ^ (mask if part[i] < zero else zero)
            low = min(low, key)
            high = max(high, key)
        lows[piece], highs[piece] = low, high


@kernel
def _peaks(keys: Array, pieces: Array, mask: Any, found: Array, start: int, stop: int) -> None:  # noqa: ANN401
    for piece in range(start, stop):
        part = keys[pieces[piece] : pieces[piece + 1]]
        largest = mask - mask
        for i in range(part.size):
            largest = max(largest, part[i] & mask)
        found[piece] = largest


@kernel
def _squares(
    values: Array, pieces: Array, factors: Array, owners: Array, lanes: Array, found: Array, start: int, stop: int
) -> None:
    for piece in range(start, stop):
        part = values[pieces[piece] : pieces[piece + 1]]
        factor = factors[owners[piece]]
        lanes[:] = 0.0
        whole = part.size // lanes.size * lanes.size
        for at in range(0, whole, lanes.size):
            here = part[at : at + lanes.size]
            for lane in range(lanes.size):
                value = np.float64(here[lane]) * factor
                lanes[lane] += value * value
        for i in range(whole, part.size):
            value = np.float64(part[i]) * factor
            lanes[i - whole] += value * value
        total = 0.0
        for lane in range(lanes.size):
            total += lanes[lane]
        found[piece] = total
