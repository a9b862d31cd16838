"""A decoder of frames that was written from FORMAT.md alone. It imports nothing of the library.

It reads valid frames; what a reader must refuse is tested elsewhere. Section numbers are those of the page.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from page_codes import low_bits, low_numbers, read_positions, read_symbols

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


# Values.


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
