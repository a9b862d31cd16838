"""Bit strings and the codes of sections 6 and 7, written from FORMAT.md alone for `page_decoder.py`."""

import struct

import numpy as np


def low_bits(data: bytes) -> np.ndarray:
    """A bit string, which fills bytes from the lowest bit up."""
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")


def low_numbers(data: bytes, k: int, width: int) -> np.ndarray:
    """k numbers of `width` bits, lowest bit first, without gaps."""
    bits = low_bits(data)[: k * width].reshape(k, width).astype(np.int64)
    return (bits << np.arange(width)).sum(1)


# 6: positions.


def high_bits(data: bytes) -> list[int]:
    """The bits of a stream, which fill bytes from the highest bit down."""
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8)).tolist()


def number_of(bits: list[int]) -> int:
    return int("".join(map(str, bits)) or "0", 2)


def bits_below(n: int) -> int:
    """w(n)."""
    return (n - 1).bit_length()


def read_positions(code: int, data: bytes, n_bits: int, k: int, count: int) -> list[int]:
    if k == 0:
        return []
    bits = high_bits(data)[:n_bits]
    if code == 0:
        width = bits_below(count)
        return [number_of(bits[i * width : (i + 1) * width]) for i in range(k)]
    if code == 1:
        return _from_blocks(bits, k, count)
    if code == 2:
        return _from_gaps(_rice_gaps(bits, k, count))
    return _from_gaps(_entropy_gaps(data, n_bits, k, count))


def _from_blocks(bits: list[int], k: int, count: int) -> list[int]:
    size = (2 * count + k) // (2 * k)
    width, at, found = bits_below(size), 0, []
    for start in range(0, count, size):
        while bits[at]:
            found.append(start + number_of(bits[at + 1 : at + 1 + width]))
            at += 1 + width
        at += 1
    assert len(found) == k
    assert at == len(bits)
    return found


def _rice_gaps(bits: list[int], k: int, count: int) -> list[int]:
    b = 0
    while 2 ** (b + 1) <= 77 * (2 * count - k) // (160 * k):
        b += 1
    at, gaps = 0, []
    for _ in range(k):
        n_zeros = bits[at:].index(1)
        at += n_zeros + 1
        gaps.append((n_zeros << b) + number_of(bits[at : at + b]))
        at += b
    assert at == len(bits)
    return gaps


def _from_gaps(gaps: list[int]) -> list[int]:
    found, last = [], -1
    for gap in gaps:
        last += gap + 1
        found.append(last)
    return found


def _class_of(gap: int) -> int:
    e = (gap + 4).bit_length() - 3
    return 4 * e + (gap + 4 >> e) - 4


def _class_starts(count: int, k: int) -> list[int]:
    one, n_classes = 1 << 64, _class_of(count - k) + 1
    q = (count - k) * one // count

    def times(a: int, b: int) -> int:
        return a * b // one

    starts, lowest = [], one
    a, stride, step = one, q, times(times(q, q), times(q, q))
    for e in range((n_classes + 3) // 4):
        share = a
        for m in range(4):
            if 4 * e + m < n_classes:
                lowest = min(lowest, share)
                starts.append(4 * e + m + times(2**14 - n_classes, one - lowest))
            share = times(share, stride)
        a, stride = times(times(a, a), step), times(stride, stride)
    return [*starts, 2**14]


def read_stack(data: bytes, n_bits: int) -> tuple[list[int], int]:
    """The words of a stream, and the x that a reader begins with."""
    n_words, t = (0, n_bits) if n_bits < 64 else (n_bits // 32 - 1, 32 + n_bits % 32)
    words = list(struct.unpack_from(f"<{n_words}I", data))
    return words, (1 << t) + number_of(high_bits(data[4 * n_words :])[:t])


def _decode_class(x: int, words: list[int], starts: list[int]) -> tuple[int, int]:
    s = x % 2**14
    c = max(number for number, start in enumerate(starts[:-1]) if start <= s and starts[number + 1] > s)
    x = (starts[c + 1] - starts[c]) * (x >> 14) + s - starts[c]
    if x < 2**32 and words:
        x = (x << 32) + words.pop()
    return c, x


def _entropy_gaps(data: bytes, n_bits: int, k: int, count: int) -> list[int]:
    words, x = read_stack(data, n_bits)
    starts, gaps = _class_starts(count, k), []
    for _ in range(k):
        c, x = _decode_class(x, words, starts)
        e, m = divmod(c, 4)
        gaps.append(((4 + m) << e) + x % 2**e - 4)
        x >>= e
        if x < 2**32 and words:
            x = (x << 32) + words.pop()
    assert (x, words) == (1, [])
    return gaps


# 7: symbols.


def read_symbols(code: int, data: bytes, k: int, n_symbols: int, width: int) -> tuple[np.ndarray, int]:
    """The symbols, and their payload bits. `width`: bits of a symbol in code 0."""
    if code == 0:
        return low_numbers(data, k, width), k * width
    counts = struct.unpack_from(f"<{n_symbols}I", data)
    (n_bits,) = struct.unpack_from("<Q", data, 4 * n_symbols)
    words, x = read_stack(data[4 * n_symbols + 8 :], n_bits)
    n_present = sum(count > 0 for count in counts)
    starts = [
        sum(count > 0 for count in counts[:c]) + (2**14 - n_present) * sum(counts[:c]) // k for c in range(n_symbols)
    ]
    symbols = []
    for _ in range(k):
        c, x = _decode_class(x, words, [*starts, 2**14])
        symbols.append(c)
    assert (x, words) == (1, [])
    assert [symbols.count(c) for c in range(n_symbols)] == list(counts)
    return np.array(symbols), n_bits + 32 * n_symbols
