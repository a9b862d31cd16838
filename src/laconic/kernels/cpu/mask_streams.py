"""Bit streams about the elements that a keyed mask selects, compiled: one range of a vector at a time.

For `cpu/signs.py` and `cpu/selected_values.py`. Reference: `reference/signs.py`. Every range of elements begins at a
multiple of 64. Streams that ranges make on their own are joined in order. Where a range's bits begin in a given stream
is known once the selected elements before it are counted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numba import int64, uint8, uint32, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.buffer_pool import LONG_BYTES, new_vector
from laconic.kernels.cpu.code_tiles import TILE, pack_tile
from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.llvm.vectors import (
    ALL,
    NONE,
    Words,
    add_signs_at,
    append,
    compress,
    expand,
    low_bits,
    negatives,
    peek,
    population,
    put_signs_at,
    selected,
)
from laconic.kernels.cpu.threads import in_chunks, is_split
from laconic.kernels.reference.signs import ALL_SELECTED

Array = NDArray[Any]
Draw = tuple[int, int, int, int]  # first coordinate, the halves of the mixed key, threshold


def draw_from(draw: Draw, start: int) -> Draw:
    """Return the mask's settings for the elements from `start` on."""
    offset, low, high, threshold = draw
    return offset + start, low, high, threshold


_FEW_WORDS = LONG_BYTES // 8  # are not worth looking for memory to use again


def bit_buffer(n_bits: int) -> Tensor:
    """Return a buffer for a stream of so many bits, and for the word that `append` writes behind it."""
    return new_vector((n_bits + 63) // 64 * 8 + 16, torch.uint8)


def words_of(stream: Tensor) -> Words:
    """Return a stream's words of 64 bits."""
    words: Words = stream.numpy().view(np.uint64)
    return words


def trimmed(stream: Tensor, n_bits: int) -> Tensor:
    """Return a stream without the buffer behind its bits."""
    return stream[: (n_bits + 7) // 8]


def padded(packed: Tensor, max_bits: int) -> Words:
    """Return a packed stream as words: 0 for whatever of `max_bits` it does not hold, and one word more."""
    n_words, n_bytes = max_bits // 64 + 2, packed.shape[0]
    if n_words < _FEW_WORDS:
        words: Words = np.zeros(n_words, np.uint64)
        words.view(np.uint8)[:n_bytes] = packed.numpy()
        return words
    words = words_of(new_vector(8 * n_words, torch.uint8))
    in_bytes = words.view(np.uint8)
    in_bytes[:n_bytes], in_bytes[n_bytes:] = packed.numpy(), 0
    return words


def joined(count: int, write: Callable[[int, int, Words], int]) -> tuple[Tensor, int]:
    """Return the stream that `write` makes of the ranges of `count` elements, and its length in bits.

    Args:
        count: Number of elements.
        write: Takes (start, stop, words), writes at most one bit for each element, and returns how many it wrote.
    """
    stream = bit_buffer(count)
    if not is_split(count):
        n = int(write(0, count, words_of(stream)))
        return trimmed(stream, n), n
    parts: dict[int, tuple[Words, int]] = {}

    def make(start: int, stop: int) -> None:
        words = words_of(stream if start == 0 else bit_buffer(stop - start))
        parts[start] = words, int(write(start, stop, words))

    in_chunks(count, make)
    words, n = parts.pop(0)
    for start in sorted(parts):
        part, n_bits = parts[start]
        n = int(copy_bits(part, 0, n_bits, words, n))
    return trimmed(stream, n), n


def sampled_counts(count: int, draw: Draw, words: Words) -> dict[int, int]:
    """Sample the mask of `count` elements into words. Returns how many each range selects, by its beginning."""
    counts: dict[int, int] = {}

    def fill(start: int, stop: int) -> None:
        counts[start] = int(draw_mask(stop - start, draw_from(draw, start), words[start // 64 :]))

    in_chunks(count, fill)
    return counts


def placed(count: int, draw: Draw, sampled: Words, use: Callable[[int, int, int, Words], object]) -> None:
    """Call `use` for each range of `count` elements, with the number of stream bits about the elements before it.

    Args:
        count: Number of elements.
        draw: First coordinate, the halves of the mixed key, threshold.
        sampled: The mask of all elements, or empty.
        use: Takes (start, stop, n, sampled): n bits of the stream are about elements before `start`; the mask is that
            from `start` on, or empty where `use` must sample it.
    """
    if not is_split(count):
        use(0, count, 0, sampled)
        return
    counts: dict[int, int] = {}
    if draw[3] not in (0, ALL_SELECTED):
        if sampled.size:
            in_chunks(count, lambda start, stop: counts.update({start: int(ones(sampled, start // 64, stop // 64))}))
        else:
            sampled = np.empty(count // 64 + 1, np.uint64)
            counts = sampled_counts(count, draw, sampled)

    def run(start: int, stop: int) -> None:
        before = start if draw[3] == ALL_SELECTED else sum(n for place, n in counts.items() if place < start)
        use(start, stop, before, sampled[start // 64 :])

    in_chunks(count, run)


@inlined
def mask_at(draw: Any, place: int) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return the mask of the 64 elements from `place` on."""
    offset, low, high, threshold = draw
    if threshold > 0xFFFFFFFF:
        return ALL
    if threshold == 0:
        return NONE
    return selected(uint32(offset + place), uint32(low), uint32(high), uint32(threshold - 1))


@kernel
def count_draws(count: int, draw: Draw) -> int:
    """Return how many of `count` elements the mask selects."""
    n: int = 0
    full = count // 64 * 64
    for place in range(0, full, 64):
        n += population(mask_at(draw, place))
    n += int64(population(mask_at(draw, full) & low_bits(count - full)))
    return n


@kernel
def draw_mask(count: int, draw: Draw, words: Words) -> int:
    """Write the mask of `count` elements to words. Returns how many it selects."""
    n: int = 0
    full = count // 64 * 64
    for place in range(0, full, 64):
        mask = mask_at(draw, place)
        words[place >> 6] = mask
        n += population(mask)
    if count > full:  # otherwise the next word belongs to another range
        mask = mask_at(draw, full) & low_bits(count - full)
        words[full >> 6] = mask
        n += population(mask)
    return n


@kernel
def pack(values: Array, draw: Draw, words: Words) -> int:
    """Write the signs of the selected elements to words. Returns how many there are."""
    words[0] = 0
    n = 0
    full = values.size // 64 * 64
    for place in range(0, full, 64):
        mask = mask_at(draw, place)
        n = append(words, n, compress(negatives(values, place), mask), population(mask))
    rest = values.size - full
    if rest:
        last = np.zeros(64, values.dtype)
        last[:rest] = values[full:]
        mask = mask_at(draw, full) & low_bits(rest)
        n = append(words, n, compress(negatives(last, 0), mask), population(mask))
    return n


@kernel
def put(words: Words, n: int, draw: Draw, sampled: Words, out: Array) -> int:
    """Write -1 or +1 at the selected elements, and 0 elsewhere. Returns how many bits of the stream are used by then.

    Args:
        words: The stream of signs.
        n: Bits of the stream that belong to elements before `out`.
        draw: The mask's settings.
        sampled: The mask as words, or empty to sample it here.
        out: Overwritten.
    """
    full = out.size // 64 * 64
    one = out.dtype.type(1)
    for place in range(0, full, 64):
        mask = sampled[place >> 6] if sampled.size else mask_at(draw, place)
        put_signs_at(out, place, expand(peek(words, n), mask), mask, one)
        n += population(mask)
    rest = out.size - full
    if rest:
        last = np.empty(64, out.dtype)
        mask = sampled[full >> 6] if sampled.size else mask_at(draw, full)
        put_signs_at(last, 0, expand(peek(words, n), mask), mask, one)
        out[full:] = last[:rest]
        n += population(mask & low_bits(rest))
    return n


@kernel
def add(words: Words, n: int, draw: Draw, sampled: Words, total: Array) -> int:
    """Add -1 or +1 at the selected elements. Arguments and result as for `put`."""
    full = total.size // 64 * 64
    one = total.dtype.type(1)
    for place in range(0, full, 64):
        mask = sampled[place >> 6] if sampled.size else mask_at(draw, place)
        add_signs_at(total, place, expand(peek(words, n), mask), mask, one)
        n += population(mask)
    rest = total.size - full
    if rest:
        last = np.zeros(64, total.dtype)
        last[:rest] = total[full:]
        mask = sampled[full >> 6] if sampled.size else mask_at(draw, full)
        add_signs_at(last, 0, expand(peek(words, n), mask), mask, one)
        total[full:] = last[:rest]
        n += population(mask & low_bits(rest))
    return n


@kernel
def copy_bits(words: Words, start: int, count: int, out: Words, at: int) -> int:
    """Copy `count` bits of a stream, from bit `start` on, behind the first `at` of another. Returns its new length."""
    n = 0
    while count - n >= 64:
        append(out, at + n, peek(words, start + n), 64)
        n += 64
    return append(out, at + n, peek(words, start + n) & low_bits(count - n), count - n)


@kernel
def shift_bits(words: Words, low: int, n_bits: int, out: Words) -> None:
    """Write `n_bits` bits of a stream from bit `low` on to `out`, which has as many words as they take."""
    for i in range((n_bits + 63) // 64):
        out[i] = peek(words, low + 64 * i)
    if n_bits % 64:
        out[n_bits // 64] &= low_bits(n_bits % 64)


_ROW = 64  # words


@kernel
def vote(voters: Array, start: int, stop: int, out: Words) -> None:
    """Write the words start .. stop - 1 of the majority.

    64 counters side by side: word p of the counter holds bit p of each element's number of negative votes. So many
    words are counted at a time that a loop over them fills the processor's lanes.
    """
    n_voters, n_planes = voters.shape[0], 1
    while n_voters >> n_planes:
        n_planes += 1
    planes, carry, equal = np.empty((n_planes, _ROW), np.uint64), np.zeros(_ROW, np.uint64), np.empty(_ROW, np.uint64)
    for begin in range(start, stop, _ROW):
        more = out[begin : min(begin + _ROW, stop)]
        planes[:] = 0
        for voter in range(n_voters):
            given = voters[voter, begin : begin + more.size]
            for k in range(given.size):
                carry[k] = given[k]
            for p in range(n_planes):
                plane = planes[p]
                for k in range(_ROW):
                    both = plane[k] & carry[k]
                    plane[k] ^= carry[k]
                    carry[k] = both
        equal[:] = ~uint64(0)
        more[:] = 0
        for p in range(n_planes - 1, -1, -1):
            plane = planes[p]
            if (n_voters // 2 >> p) & 1:
                for k in range(_ROW):
                    equal[k] &= plane[k]
            else:
                for k in range(more.size):
                    more[k] |= equal[k] & plane[k]
                for k in range(_ROW):
                    equal[k] &= ~plane[k]


@kernel
def momentum_pack(gradient: Array, momentum: Array, mu: float, rest_of_one: float, words: Words) -> int:
    """Average a momentum with the gradient, over the gradient, and write all signs. Returns how many."""
    number = gradient.dtype.type
    none, factor, fresh = number(0), number(mu), number(rest_of_one)
    negative, packed = np.zeros(TILE, np.uint8), words.view(np.uint8)
    words[gradient.size // 64] = words[gradient.size // 64 + 1] = 0  # another range's bits may be appended there
    for start in range(0, gradient.size, TILE):
        new, old = gradient[start : start + TILE], momentum[start : start + TILE]
        for i in range(new.size):
            value = factor * old[i] + fresh * new[i]
            new[i] = value
            negative[i] = uint8(value < none)
        negative[new.size :] = uint8(0)
        pack_tile(negative, 1, packed[start // 8 : (start + new.size + 7) // 8])
    return int(gradient.size)


@kernel
def ones(words: Words, start: int, stop: int) -> int:
    """Return how many bits of the words start .. stop - 1 are set."""
    n: int = 0
    for word in range(start, stop):
        n += population(words[word])
    return n
