"""A decoder of frames that was written from FORMAT.md alone. It imports nothing of the library.

It reads valid frames; what a reader must refuse is tested elsewhere. Section numbers are those of the page.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

PACKETS = {
    3: "dense", 4: "signs", 5: "scaled signs", 6: "positions", 7: "sparse", 8: "vote change", 9: "fractional",
    10: "quantized", 11: "levels", 12: "short floats", 13: "kept values",
}  # fmt: skip
CONTROLS = {128: "SKIP", 129: "ABORT", 130: "ADMIT", 131: "USED", 132: "BYE"}
WIDTHS = {0: 4, 1: 8, 2: 2}  # bytes of a value
FLOAT32, FLOAT64, BFLOAT16 = 0, 1, 2


@dataclass
class Packet:
    """A packet's coordinates and its dense form, as float64, which holds the numbers of every value type."""

    offset: int
    dense: np.ndarray
    payload_bits: int
    dropped: list[int] | None = None  # of a vote change


@dataclass
class Frame:
    """A frame's header, and what it carries."""

    kind: int
    role: str
    rank: int
    exchange: int
    round: int
    weight: int
    delivered: bool
    set_differs: bool
    value_type: int
    control: str | None
    used: list[bool] | None
    payload_bits: int
    payload: bytes


def read_frame(data: bytes) -> Frame:
    """Section 1, and section 2 for a control frame."""
    version, kind, flags, rank, exchange, round_, checksum, weight = struct.unpack("<BBHHHIII", data[:20])
    payload_bytes, payload_bits = (int.from_bytes(data[at : at + 6], "little") for at in (20, 26))
    payload = data[32:]
    assert version == 2
    assert len(payload) == payload_bytes
    assert zlib.crc32(data[:12] + bytes(4) + data[16:]) == checksum
    assert flags >> 3 & 1 == flags >> 6 == 0
    control, used = CONTROLS.get(kind), None
    if control == "USED":
        used = [bool(bit) for bit in low_bits(payload)[:payload_bits]]
    elif control is not None:
        assert (payload, payload_bits) == (b"", 1)
    return Frame(
        kind=kind, role="server" if flags & 1 else "worker", rank=rank, exchange=exchange, round=round_, weight=weight,
        delivered=not flags >> 4 & 1, set_differs=bool(flags >> 5 & 1), value_type=flags >> 1 & 3, control=control,
        used=used, payload_bits=payload_bits, payload=payload,
    )  # fmt: skip


def read_packet(frame: Frame, readers: dict) -> Packet:
    """Section 3. `readers`: READERS, and those of further kinds."""
    return readers[frame.kind](frame.payload, frame.value_type, readers)


# Numbers and bits.


def low_bits(data: bytes) -> np.ndarray:
    """A bit string, which fills bytes from the lowest bit up."""
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")


def low_numbers(data: bytes, k: int, width: int) -> np.ndarray:
    """k numbers of `width` bits, lowest bit first, without gaps."""
    bits = low_bits(data)[: k * width].reshape(k, width).astype(np.int64)
    return (bits << np.arange(width)).sum(1)


def values_of(data: bytes, value_type: int) -> np.ndarray:
    if value_type == BFLOAT16:
        return (np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return np.frombuffer(data, dtype="<f4" if value_type == FLOAT32 else "<f8").astype(np.float64)


def rounded(numbers: np.ndarray, value_type: int) -> np.ndarray:
    """Numbers (n,) in the value type, to nearest, a tie to the even neighbor."""
    if value_type == FLOAT64:
        return numbers.astype(np.float64)
    single = numbers.astype(np.float32)
    if value_type == FLOAT32:
        return single.astype(np.float64)
    patterns = single.view(np.uint32)
    patterns = patterns + 0x7FFF + (patterns >> 16 & 1)
    return (patterns & 0xFFFF0000).view(np.float32).astype(np.float64)


# 3.2: the keyed mask.


def hash32(numbers: np.ndarray, key: int) -> np.ndarray:
    z = (key + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z ^= z >> 31
    low, high = np.uint32(z % 2**32), np.uint32(z >> 32)
    x = numbers.astype(np.uint32) ^ low
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = x ^ x >> np.uint32(15)
    x = (x + high) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)


def selected(offset: int, count: int, key: int, below: int) -> np.ndarray:
    return hash32(np.arange(offset, offset + count, dtype=np.uint64), key) <= below  # less than below + 1


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


# 3: the kinds.


def read_dense(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count = struct.unpack_from("<II", payload)
    values = values_of(payload[8:], value_type)
    assert len(values) == count
    return Packet(offset, values, 8 * WIDTHS[value_type] * count)


def read_signs(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, key, below = struct.unpack_from("<IIQI", payload)
    mask = selected(offset, count, key, below)
    dense = np.zeros(count)
    dense[mask] = 1.0 - 2.0 * low_bits(payload[20:])[: mask.sum()]
    return Packet(offset, dense, int(mask.sum()))


def read_blocks(payload: bytes, count: int) -> tuple[np.ndarray, bytes]:
    """The length of each block, and what follows the fields `size` and `blocks` and their table."""
    size, blocks = struct.unpack_from("<II", payload)
    if size:
        return np.array([min(size, count - start) for start in range(0, count, size)]), payload[8:]
    return np.array(struct.unpack_from(f"<{blocks}I", payload, 8)), payload[8 + 4 * blocks :]


def read_scaled_signs(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count = struct.unpack_from("<II", payload)
    lengths, rest = read_blocks(payload[8:], count)
    n_bytes = WIDTHS[value_type] * len(lengths)
    scales = values_of(rest[:n_bytes], value_type)
    signs = 1.0 - 2.0 * low_bits(rest[n_bytes:])[:count]
    return Packet(offset, signs * np.repeat(scales, lengths), count + 8 * n_bytes)


def read_position_fields(payload: bytes) -> tuple[int, int, int, int, int, int]:
    offset, count, k, code, values, reserved, n_bits = struct.unpack_from("<IIIBBHQ", payload)
    assert reserved == 0
    return offset, count, k, code, values, n_bits


def indicator(count: int, positions: list[int]) -> np.ndarray:
    dense = np.zeros(count)
    dense[positions] = 1
    return dense


def read_position_packet(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, k, code, values, n_bits = read_position_fields(payload)
    assert (values, value_type) == (0, 0)
    return Packet(offset, indicator(count, read_positions(code, payload[24:], n_bits, k, count)), n_bits)


def read_sparse(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, k, code, values, n_bits = read_position_fields(payload)
    stop = len(payload) - (n_bits + 7) // 8
    positions = read_positions(code, payload[stop:], n_bits, k, count)
    dense, values_bits = np.zeros(count), 0
    if k:
        nested = readers[values](payload[24:stop], value_type, readers)
        assert (nested.offset, len(nested.dense)) == (0, k)
        dense[positions], values_bits = nested.dense, nested.payload_bits
    else:
        assert (values, stop) == (3, 24)
    return Packet(offset, dense, n_bits + values_bits)


def read_vote_change(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, k, code, values, added_bits = read_position_fields(payload)
    listed, dropped_bits = struct.unpack_from("<IQ", payload, 24)
    assert (values, value_type) == (0, 0)
    middle = 36 + (added_bits + 7) // 8
    added = read_positions(code, payload[36:middle], added_bits, k, count)
    dropped = read_positions(code, payload[middle:], dropped_bits, k, listed)
    return Packet(offset, indicator(count, added), added_bits + dropped_bits, dropped)


def read_fractional(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, q = struct.unpack_from("<III", payload)
    n_levels = 2 ** (q - 1)
    n_bytes = WIDTHS[value_type] * n_levels
    means = values_of(payload[12 : 12 + n_bytes], value_type)
    codes = low_numbers(payload[12 + n_bytes :], count, q)
    signs = 1.0 - 2.0 * (codes >> (q - 1))
    return Packet(offset, signs * means[codes % n_levels], q * count + 8 * n_bytes)


def between(low: np.ndarray, high: np.ndarray, codes: np.ndarray, n: int, value_type: int) -> np.ndarray:
    """The dense form of 3.8: code c of n on the line from low to high."""
    number = np.float64 if value_type == FLOAT64 else np.float32
    small = number(2.0 ** (500 if value_type == FLOAT64 else 60))
    low, high, codes = low.astype(number), high.astype(number), codes.astype(number)
    with np.errstate(over="ignore"):
        span = high - low
    e = np.where(~np.isfinite(span), number(0.5), np.where((span > 0) & (span < 1 / small), small, number(1)))
    scaled_low = e * low
    step = (e * high - scaled_low) / number(n)
    y = (codes * step + scaled_low) / e
    dense = np.where((codes == n) | ~(y < high), high, y)
    return rounded(dense, value_type) + 0.0  # a zero has no minus sign


def read_quantized(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, b, code, reserved = struct.unpack_from("<IIBBH", payload)
    assert reserved == 0
    lengths, rest = read_blocks(payload[12:], count)
    n_bytes = 2 * WIDTHS[value_type] * len(lengths)
    low, high = values_of(rest[:n_bytes], value_type).reshape(2, len(lengths))
    symbols, n_bits = read_symbols(code, rest[n_bytes:], count, 2**b, b)
    dense = between(np.repeat(low, lengths), np.repeat(high, lengths), symbols, 2**b - 1, value_type)
    return Packet(offset, dense, n_bits + 8 * n_bytes)


def read_levels(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, s, code, reserved = struct.unpack_from("<IIHBB", payload)
    assert reserved == 0
    lengths, rest = read_blocks(payload[12:], count)
    n_bytes = WIDTHS[value_type] * len(lengths)
    scales = np.repeat(values_of(rest[:n_bytes], value_type), lengths)
    n_digits = s.bit_length()
    symbols, n_bits = read_symbols(code, rest[n_bytes:], count, 2 * s + 1, 1 + n_digits)
    levels = symbols - s if code else np.where(symbols >> n_digits, -(symbols % 2**n_digits), symbols)
    dense = np.sign(levels) * between(np.zeros(count), scales, np.abs(levels), s, value_type)
    return Packet(offset, dense, n_bits + 8 * n_bytes)


def read_short_floats(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, m = struct.unpack_from("<III", payload)
    n_exponent, n_mantissa, number, integer = (11, 52, "<f8", "<u8") if value_type == FLOAT64 else (8, 23, "<f4", "<u4")
    middle = 12 + ((1 + n_exponent) * count + 7) // 8
    codes = low_numbers(payload[12:middle], count, 1 + n_exponent).astype(np.uint64)
    mantissas = low_numbers(payload[middle:], count, m).astype(np.uint64) if m else np.zeros(count, dtype=np.uint64)
    patterns = (codes << np.uint64(n_mantissa)) + (mantissas << np.uint64(n_mantissa - m))
    return Packet(offset, patterns.astype(integer).view(number).astype(np.float64), (1 + n_exponent + m) * count)


def read_selected_values(payload: bytes, value_type: int, readers: dict) -> Packet:
    offset, count, key, below = struct.unpack_from("<IIQI", payload)
    mask = selected(offset, count, key, below)
    dense = np.zeros(count)
    dense[mask] = values_of(payload[20:], value_type)
    return Packet(offset, dense, 8 * WIDTHS[value_type] * int(mask.sum()))


READERS = {
    3: read_dense, 4: read_signs, 5: read_scaled_signs, 6: read_position_packet, 7: read_sparse, 8: read_vote_change,
    9: read_fractional, 10: read_quantized, 11: read_levels, 12: read_short_floats, 13: read_selected_values,
}  # fmt: skip
