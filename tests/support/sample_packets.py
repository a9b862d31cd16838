"""Packets of every kind, sampled by Hypothesis or fixed, and functions of tests for their bytes."""

import dataclasses
import functools
import struct
import zlib
from collections import defaultdict
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import Tensor

from laconic.kernels.api import pack_codes
from laconic.kernels.reference import hashing as reference_hashing
from laconic.kernels.reference import stochastic_rounding as reference_stochastic_rounding
from laconic.wire import (
    POSITION_CODES,
    Dense,
    FractionalValues,
    Frame,
    Header,
    Levels,
    Packet,
    Positions,
    QuantizedValues,
    ScaledSigns,
    SelectedValues,
    ShortFloats,
    Signs,
    Sparse,
    VoteChange,
    decode,
    encode,
    pack_levels,
)

VALUE_TYPES = (torch.float32, torch.float64, torch.bfloat16)
KEY = 0x4806654E26238EC1
HEADER = Header(role="worker", rank=3, round=7)


def bytes_of(packet: Packet | None, header: Header = HEADER, *, aborted: bool = False) -> bytes:
    """The encoded frame of a packet, or a control frame."""
    return bytes(encode(Frame(header=header, packet=packet, aborted=aborted)).numpy())


def resealed(data: bytes | bytearray) -> bytes:
    """The same frame with a checksum that matches, written without the library's help."""
    blank = bytes(data[:12]) + bytes(4) + bytes(data[16:])
    return blank[:12] + struct.pack("<I", zlib.crc32(blank)) + blank[16:]


def patched(data: bytes, at: int, kind: str, value: int) -> bytes:
    """The frame with one little-endian field overwritten, its checksum matching."""
    changed = bytearray(data)
    struct.pack_into("<" + kind, changed, at, value)
    return resealed(changed)


def flipped(data: bytes, bit: int) -> bytes:
    """The frame with one bit flipped; its checksum does not change."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def signs_of(
    negative: Tensor, *, offset: int = 0, key: int = KEY, threshold: int = 1 << 32, dtype=torch.float32
) -> Signs:
    """The signs packet of a full vector's signs, without those that the Bernoulli draws drop."""
    selected = negative[reference_hashing.keep_mask(offset, negative.numel(), key, threshold)]
    return Signs(
        packed=reference_hashing.pack_bits(selected), n_selected=selected.numel(), offset=offset,
        count=negative.numel(), key=key,
        threshold=threshold, dtype=dtype,
    )  # fmt: skip


def assert_same_packet(one: Packet, other: Packet) -> None:
    """Equal in kind and in every field, to the bit."""
    assert type(one) is type(other)
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        left, right = getattr(one, field.name), getattr(other, field.name)
        if not field.compare:  # computed by a reader from the other fields
            continue
        if isinstance(left, Tensor):
            assert left.dtype == right.dtype, field.name
            assert torch.equal(torch.cat([left]).view(torch.uint8), torch.cat([right]).view(torch.uint8)), field.name
        elif isinstance(left, Packet):
            assert_same_packet(left, right)
        else:
            assert left == right, field.name


def vectors(dtype: torch.dtype, largest: float = 2.0**100) -> st.SearchStrategy[Tensor]:
    """Finite values, (1 .. 40,) of dtype."""
    floats = st.floats(-largest, largest, width=64 if dtype == torch.float64 else 32)
    return st.lists(floats, min_size=1, max_size=40).map(lambda values: torch.tensor(values, dtype=dtype))


firsts = st.one_of(st.just(0), st.integers(0, 1000), st.integers(0, 2**32 - 41))
value_types = st.sampled_from(VALUE_TYPES)
thresholds = st.one_of(st.sampled_from((1, 1 << 31, (1 << 32) - 1, 1 << 32)), st.integers(1, 1 << 32))
flags = st.lists(st.booleans(), min_size=1, max_size=40).map(torch.tensor)


@st.composite
def dense_packets(draw) -> Dense:
    return Dense(values=draw(vectors(draw(value_types))), offset=draw(firsts))


@st.composite
def sign_packets(draw) -> Signs:
    return signs_of(
        draw(flags),
        offset=draw(firsts),
        key=draw(st.integers(0, 2**64 - 1)),
        threshold=draw(thresholds),
        dtype=draw(value_types),
    )


@st.composite
def block_lengths(draw, count: int) -> tuple[int, ...]:
    """Lengths that add up to count, of one size or not."""
    bounds = draw(
        st.one_of(st.sets(st.integers(1, count)), st.integers(1, count).map(lambda size: range(size, count, size)))
    )
    edges = sorted({0, count, *bounds})
    return tuple(stop - start for start, stop in pairwise(edges))


@st.composite
def scaled_sign_packets(draw) -> ScaledSigns:
    negative = draw(flags)
    lengths = draw(block_lengths(negative.numel()))
    scales = draw(st.lists(st.floats(0, 2.0**100, width=32), min_size=len(lengths), max_size=len(lengths)))
    dtype = draw(value_types)
    return ScaledSigns(
        packed=reference_hashing.pack_bits(negative),
        scales=torch.tensor(scales, dtype=dtype),
        lengths=lengths,
        offset=draw(firsts),
    )


@st.composite
def index_lists(draw, count: int, k: int | None = None) -> Tensor:
    """Ascending positions below `count`, (k,) int64; any number of them where k is None."""
    size = {} if k is None else {"min_size": k, "max_size": k}
    return torch.tensor(sorted(draw(st.sets(st.integers(0, count - 1), **size))), dtype=torch.int64)


counts = st.integers(1, 40)
codes = st.sampled_from(POSITION_CODES)


@st.composite
def position_packets(draw) -> Positions:
    count = draw(counts)
    return Positions(indices=draw(index_lists(count)), count=count, offset=draw(firsts), code=draw(codes))


@st.composite
def sparse_packets(draw) -> Sparse:
    """With dense values, which can be split."""
    values = draw(st.one_of(st.just(torch.empty(0)), vectors(draw(value_types))))
    k = values.numel()
    count = draw(st.integers(max(k, 1), 40))
    indices = draw(index_lists(count, k))
    return Sparse(indices=indices, values=Dense(values=values), count=count, offset=draw(firsts), code=draw(codes))


@st.composite
def vote_changes(draw) -> VoteChange:
    count = draw(counts)
    listed = draw(st.integers(1, count))
    dropped = draw(index_lists(listed))
    added = draw(index_lists(count, dropped.numel()))
    return VoteChange(added=added, dropped=dropped, count=count, listed=listed, offset=draw(firsts), code=draw(codes))


@st.composite
def fractional_packets(draw) -> FractionalValues:
    bits = draw(st.integers(1, 16))
    n_levels = 1 << (bits - 1)
    negative = draw(flags)
    count = negative.numel()
    levels = draw(st.lists(st.integers(0, n_levels - 1), min_size=count, max_size=count))
    means = torch.linspace(draw(st.floats(0, 2.0**100)), 0, n_levels, dtype=torch.float64).to(draw(value_types))
    return fractional_of(negative, levels, means=means, bits=bits, offset=draw(firsts))


def fractional_of(negative: Tensor, levels: list[int], **fields) -> FractionalValues:
    """The packet of signs and levels."""
    bits = fields["bits"]
    packed = pack_codes(torch.tensor(levels, dtype=torch.int32) | negative.int() << (bits - 1), bits)
    return FractionalValues(packed=packed, count=len(levels), **fields)


def quantized_of(codes: list[int], **fields) -> QuantizedValues:
    """The packet of codes."""
    packed = pack_codes(torch.tensor(codes, dtype=torch.int32), fields["bits"])
    return QuantizedValues(packed=packed, count=len(codes), **fields)


def levels_of(levels: list[int], **fields) -> Levels:
    """The packet of signed levels."""
    packed = pack_levels(torch.tensor(levels, dtype=torch.int32), fields["steps"])
    return Levels(packed=packed, count=len(levels), **fields)


@st.composite
def quantized_packets(draw) -> QuantizedValues:
    bits = draw(st.integers(1, 8))
    codes = draw(st.lists(st.integers(0, (1 << bits) - 1), min_size=1, max_size=40))
    lengths = draw(block_lengths(len(codes)))
    n, dtype = len(lengths), draw(value_types)
    ends = draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=2 * n, max_size=2 * n))
    lows, highs = torch.tensor(ends, dtype=dtype).view(2, n).sort(0).values
    return quantized_of(
        codes, lows=lows, highs=highs, lengths=lengths, bits=bits, entropy=draw(st.booleans()), offset=draw(firsts)
    )


@st.composite
def level_packets(draw) -> Levels:
    steps = draw(st.one_of(st.sampled_from((1, 2, 3, 255)), st.integers(1, 255)))
    sampled = draw(st.lists(st.integers(-steps, steps), min_size=1, max_size=40))
    lengths = draw(block_lengths(len(sampled)))
    scales = draw(st.lists(st.floats(0, 2.0**100, width=32), min_size=len(lengths), max_size=len(lengths)))
    return levels_of(
        sampled, scales=torch.tensor(scales, dtype=draw(value_types)), lengths=lengths, steps=steps,
        entropy=draw(st.booleans()), offset=draw(firsts),
    )  # fmt: skip


@st.composite
def short_float_packets(draw) -> ShortFloats:
    values = draw(vectors(draw(st.sampled_from(VALUE_TYPES[:2]))))
    mantissa_bits = draw(st.integers(0, 22))
    return ShortFloats.of(reference_stochastic_rounding.shortened(values, mantissa_bits), mantissa_bits, draw(firsts))


@st.composite
def selected_value_packets(draw) -> SelectedValues:
    full, offset = draw(vectors(draw(value_types))), draw(firsts)
    key, threshold = draw(st.integers(0, 2**64 - 1)), draw(thresholds)
    selected = full[reference_hashing.keep_mask(offset, full.numel(), key, threshold)]
    return SelectedValues(values=selected, count=full.numel(), key=key, threshold=threshold, offset=offset)


packets = st.one_of(
    dense_packets(),
    sign_packets(),
    scaled_sign_packets(),
    position_packets(),
    sparse_packets(),
    vote_changes(),
    fractional_packets(),
    quantized_packets(),
    level_packets(),
    short_float_packets(),
    selected_value_packets(),
)
headers = st.builds(
    Header,
    role=st.sampled_from(("worker", "server")),
    rank=st.integers(0, 2**16 - 1),
    round=st.integers(0, 2**32 - 1),
    exchange=st.integers(0, 255),
)


QUANTIZED = quantized_of(
    [0, 5, 7, 1, 2, 7, 3], lows=torch.tensor([-1.0, 0.0, -3.0]),
    highs=torch.tensor([2.5, 0.0, 4.0]), lengths=(3, 3, 1), bits=3, offset=4,
)  # fmt: skip
LEVELS = levels_of([0, -1, 2, 1, 0, -2, 0], scales=torch.tensor([0.5, 2.0, 0.0]), lengths=(3, 3, 1), steps=3, offset=6)


@functools.cache
def samples() -> dict[str, bytes]:
    """One small frame of each kind and shape of payload, of vectors with at most 50 elements."""
    negative = torch.tensor([True, False, False, True, True, False, True, True, False, True, True])
    values = torch.tensor([1.5, -2.0, 0.0, 3.25, -0.0])
    scales = torch.tensor([0.5, 2.0, 0.0])
    fractions = fractional_of(values < 0, [0, 1, 3, 2, 3], means=torch.tensor([7, 3.5, 0, 0.7]), bits=3)
    indices, dropped = torch.tensor([1, 4, 5, 9, 12]), torch.tensor([0, 2, 3, 4, 7])
    return {
        "skip": bytes_of(None),
        "aborted": bytes_of(None, aborted=True),
        "dense float32": bytes_of(Dense(values=values, offset=4)),
        "dense float64": bytes_of(Dense(values=values.double())),
        "dense bfloat16": bytes_of(Dense(values=values.bfloat16(), offset=1)),
        "all signs": bytes_of(signs_of(negative, offset=2)),
        "kept signs": bytes_of(signs_of(negative, offset=5, threshold=1 << 31)),
        "no sign kept": bytes_of(signs_of(negative, threshold=1)),
        "one block": bytes_of(
            ScaledSigns(packed=reference_hashing.pack_bits(negative), scales=scales[:1], lengths=(11,), offset=3)
        ),
        "blocks of 4": bytes_of(
            ScaledSigns(packed=reference_hashing.pack_bits(negative), scales=scales, lengths=(4, 4, 3), offset=0)
        ),
        "uneven blocks": bytes_of(
            ScaledSigns(
                packed=reference_hashing.pack_bits(negative), scales=scales.double(), lengths=(2, 8, 1), offset=9
            )
        ),
        **{
            f"positions as {code}": bytes_of(Positions(indices=indices, count=14, offset=6, code=code))
            for code in POSITION_CODES
        },
        "sparse float32": bytes_of(Sparse(indices=indices, values=Dense(values=values), count=13, offset=2)),
        "sparse float64": bytes_of(
            Sparse(indices=indices, values=Dense(values=values.double()), count=20, code="list")
        ),
        "sparse bfloat16": bytes_of(
            Sparse(indices=indices, values=Dense(values=values.bfloat16()), count=17, offset=1, code="entropy")
        ),
        "sparse fractions": bytes_of(Sparse(indices=indices, values=fractions, count=14, offset=3)),
        "fractional": bytes_of(dataclasses.replace(fractions, offset=2)),
        "fractional float64": bytes_of(dataclasses.replace(fractions, means=fractions.means.double())),
        "one bit each": bytes_of(fractional_of(negative, [0] * 11, means=scales[:1], bits=1, offset=5)),
        "quantized": bytes_of(QUANTIZED),
        "quantized by count": bytes_of(dataclasses.replace(QUANTIZED, entropy=True)),
        "quantized uneven": bytes_of(
            dataclasses.replace(
                QUANTIZED, lows=QUANTIZED.lows.double(), highs=QUANTIZED.highs.double(), lengths=(2, 4, 1)
            )
        ),
        "levels": bytes_of(LEVELS),
        "levels by count": bytes_of(dataclasses.replace(LEVELS, entropy=True)),
        "levels uneven": bytes_of(dataclasses.replace(LEVELS, scales=scales.bfloat16(), lengths=(2, 4, 1), steps=2)),
        "powers of two": bytes_of(ShortFloats.of(torch.tensor([1.0, -0.5, 0.0]), 0, 7)),
        "short floats": bytes_of(ShortFloats.of(values, 3)),
        "short float64": bytes_of(ShortFloats.of(values.double(), 22, 1)),
        "kept values": bytes_of(SelectedValues(values=values[:4], count=5, key=KEY, threshold=1 << 31, offset=2)),
        "kept float64": bytes_of(SelectedValues(values=values.double(), count=5, key=1, threshold=1 << 32)),
        "no value kept": bytes_of(SelectedValues(values=values[:0], count=5, key=KEY, threshold=1)),
        "vote change": bytes_of(VoteChange(added=indices, dropped=dropped, count=30, listed=9, offset=4)),
        "vote change by gaps": bytes_of(VoteChange(added=indices, dropped=dropped, count=15, listed=8, code="rice")),
    }


def samples_by_kind() -> dict[str, dict[str, bytes]]:
    """The samples of every kind of packet, and as "notice" those that carry none."""
    by_kind: dict[str, dict[str, bytes]] = defaultdict(dict)
    for name, data in samples().items():
        packet = decode(data, 50).packet
        by_kind["notice" if packet is None else packet.name][name] = data
    return dict(by_kind)
