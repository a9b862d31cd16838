"""The rules of quantized values, levels, short floats and kept values; what all kinds share is in test_frames.py."""

import dataclasses
import struct

import pytest
import torch

from laconic.errors import WireError
from laconic.wire import HEADER_BYTES, POSITION_CODES, SelectedValues, ShortFloats, Sparse, decode, max_encoded_bytes
from support.frame_bytes import KEY, bytes_of, flipped, patched, resealed, with_value_type
from support.inputs import over_inputs
from support.packets.levels import LEVELS
from support.packets.quantized import QUANTIZED, quantized_of

POWERS = ShortFloats.of(torch.tensor([1.0, -0.5, 0.0]), 0, 7)
SHORT = ShortFloats.of(torch.tensor([1.5, -2.75]), 2)
SELECTED = SelectedValues(values=torch.tensor([1.5, -2.0, 3.0, 0.25]), count=5, key=KEY, threshold=1 << 31, offset=2)


def test_quantized_codes_follow_the_ends_of_their_blocks():
    codes = sum(code << 3 * i for i, code in enumerate([0, 5, 7, 1, 2, 7, 3]))
    fields = bytes.fromhex("04000000 07000000 03 00 0000 03000000 03000000")
    ends = struct.pack("<6f", -1, 0, -3, 2.5, 0, 4)
    assert bytes_of(QUANTIZED)[HEADER_BYTES:] == fields + ends + codes.to_bytes(3, "little")
    assert decode(bytes_of(QUANTIZED), 11).packet.dense().tolist() == [-1, 1.5, 2.5, 0, 0, 0, 0]


def test_levels_follow_the_scales_with_the_sign_on_top():
    codes = sum(code << 3 * i for i, code in enumerate([0, 0b101, 0b010, 0b001, 0, 0b110, 0]))
    fields = bytes.fromhex("06000000 07000000 0300 00 00 03000000 03000000")
    assert bytes_of(LEVELS)[HEADER_BYTES:] == fields + struct.pack("<3f", 0.5, 2, 0) + codes.to_bytes(3, "little")
    dense = decode(bytes_of(LEVELS), 13).packet.dense()
    assert dense.tolist() == pytest.approx([0, -0.5 / 3, 1 / 3, 2 / 3, 0, -4 / 3, 0], rel=1e-7)


def test_short_floats_are_exponents_with_their_sign_and_then_mantissas():
    codes = 127 | (256 + 126) << 9
    assert bytes_of(POWERS)[HEADER_BYTES:] == bytes.fromhex("07000000 03000000 00000000") + codes.to_bytes(4, "little")
    codes, mantissas = 127 | (256 + 128) << 9, 0b10 | 0b01 << 2
    assert bytes_of(SHORT)[HEADER_BYTES + 12 :] == codes.to_bytes(3, "little") + bytes([mantissas])
    assert decode(bytes_of(SHORT), 2).packet.dense().tolist() == [1.5, -2.5]


def test_selected_values_go_where_the_mask_selects():
    payload = struct.pack("<IIQI", 2, 5, KEY, (1 << 31) - 1) + struct.pack("<4f", 1.5, -2, 3, 0.25)
    assert bytes_of(SELECTED)[HEADER_BYTES:] == payload
    assert decode(bytes_of(SELECTED), 7).packet.dense().tolist() == [0, 1.5, -2, 3, 0.25]
    assert SELECTED.part(3, 5).dense().tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("packet", "paper", "payload", "overheads"),
    [
        (QUANTIZED, 21, 21 + 192, {"ends of ranges": 192}),
        (LEVELS, 21 + 96, 21 + 96, {}),
        (POWERS, 27, 27, {}),
        (SHORT, 22, 22, {}),
        (SELECTED, 80, 128, {"mask drawn, not expected": 48}),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_payload_is_the_papers_bits_and_the_named_overheads(packet, paper, payload, overheads):
    assert (packet.paper_bits, packet.payload_bits, packet.named_overheads) == (paper, payload, overheads)


def test_float64_is_named_where_it_costs():
    wide = {"scales": LEVELS.scales.double()}
    assert dataclasses.replace(LEVELS, **wide).named_overheads == {"value type": 96}
    ends = {"lows": QUANTIZED.lows.double(), "highs": QUANTIZED.highs.double()}
    assert dataclasses.replace(QUANTIZED, **ends).named_overheads == {"ends of ranges": 384}
    assert ShortFloats.of(SHORT.values.double(), 2).named_overheads == {"value type": 6}
    n_selected = dataclasses.replace(SELECTED, values=SELECTED.values.double())
    assert n_selected.named_overheads == {"mask drawn, not expected": 48, "value type": 128}


@pytest.mark.parametrize("packet", [QUANTIZED, LEVELS], ids=lambda packet: packet.name)
def test_what_the_entropy_code_saves_is_named_and_exact(packet):
    coded = dataclasses.replace(packet, entropy=True)
    saved = coded.named_overheads["entropy code"]
    assert coded.paper_bits == packet.paper_bits
    assert coded.payload_bits == coded.paper_bits + sum(coded.named_overheads.values()) == packet.payload_bits + saved
    assert torch.equal(coded.dense(), packet.dense())


@over_inputs(
    ("packet", "at", "kind", "value", "reason"),
    [
        (QUANTIZED, 8, "B", 0, "quantized: 0 bits a value"),
        (QUANTIZED, 8, "B", 9, "quantized: 9 bits a value"),
        (QUANTIZED, 9, "B", 2, "code 2"),
        (QUANTIZED, 10, "H", 1, "reserved bytes 1"),
        (QUANTIZED, 20, "I", 0x7FC00000, "an end of a range is inf or NaN"),
        (QUANTIZED, 32, "I", 0x7F800000, "an end of a range is inf or NaN"),
        (QUANTIZED, 36, "I", 0xBF800000, "a low end above its high end"),
        (QUANTIZED, 16, "I", 2, "2 blocks of 3 for 7 coordinates"),
        (LEVELS, 8, "H", 0, "levels: 0 levels"),
        (LEVELS, 8, "H", 256, "levels: 256 levels"),
        (LEVELS, 10, "B", 2, "code 2"),
        (LEVELS, 11, "B", 1, "reserved byte 1"),
        (LEVELS, 20, "I", 0xBF800000, "a scale is negative"),
        (LEVELS, 32, "B", 0x2C, "a level above 3, or a zero with a minus sign"),
        (POWERS, 8, "I", 23, "23 bits of mantissa"),
        (POWERS, 12, "H", 0x00FF, "inf or NaN"),
        (SELECTED, 20, "I", 0x7FC00000, "inf or NaN among the values"),
        (SELECTED, 16, "I", (1 << 32) - 1, "its fields need 40"),
    ],
)
def test_what_a_kind_does_not_allow_is_refused_by_name(packet, at, kind, value, reason):
    with pytest.raises(WireError, match=reason):
        decode(patched(bytes_of(packet), HEADER_BYTES + at, kind, value), 50)


@pytest.mark.parametrize("packet", [QUANTIZED, LEVELS, POWERS, SHORT], ids=lambda packet: packet.name)
def test_padding_that_is_not_zero_is_refused(packet):
    data = bytes_of(packet)
    with pytest.raises(WireError, match="padding"):
        decode(resealed(flipped(data, 8 * len(data) - 1)), 50)


def test_short_floats_have_no_type_of_sixteen_bits():
    with pytest.raises(WireError, match=r"short floats: 0 bits of mantissa of torch\.bfloat16"):
        decode(with_value_type(bytes_of(POWERS), 2), 50)


def test_values_of_codes_are_finite_and_between_their_ends_whatever_these_are():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        largest = torch.finfo(dtype).max
        lows, highs = torch.tensor([[-largest, largest, -largest], [largest] * 3], dtype=dtype)
        dense = quantized_of([*range(256)] * 3, lows=lows, highs=highs, lengths=(256,) * 3, bits=8).dense()
        assert bool(torch.isfinite(dense).all())
        assert dense[[0, 255]].tolist() == [-largest, largest]
        assert bool((dense[:256].diff() > 0).all())
        assert bool((dense[256:512] == largest).all())


@over_inputs("position_code", POSITION_CODES)
def test_a_block_and_a_position_for_every_coordinate_are_within_the_bound(position_code):
    n = 100_000
    lengths = (2, *(n - 2) * (1,))  # of two sizes, so that they are sent
    ends = torch.zeros(n - 1, dtype=torch.float64)
    packet = quantized_of([0] * n, lows=ends, highs=ends, lengths=lengths, bits=8)
    nested = Sparse(indices=torch.arange(n), values=packet, count=n, code=position_code)
    for longest in (packet, nested):
        payload_bytes = len(bytes_of(longest)) - HEADER_BYTES
        assert 20 * n < payload_bytes <= max_encoded_bytes(n)
        assert decode(bytes_of(longest), n).payload_bits == longest.payload_bits


def test_symbols_that_are_as_many_as_can_be_are_within_the_bound():
    n = 200_000
    for n_others in (1, 2, n // 100, n):  # so many codes are of any value, the others 0
        codes = [(7 * i) % 256 if i < n_others else 0 for i in range(n)]
        packet = quantized_of(codes, lows=torch.zeros(1), highs=torch.ones(1), lengths=(n,), bits=8, entropy=True)
        assert len(bytes_of(packet)) - HEADER_BYTES <= 1.1 * n + 4096
