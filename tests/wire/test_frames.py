"""Packet -> bytes -> packet, and the bytes themselves as wire/FORMAT.md draws them."""

import re
import struct
import zlib
from importlib.resources import files
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compressors import signs
from laconic.kernels.reference import hashing as reference_hashing
from laconic.random_keys import make_key
from laconic.wire import (
    HEADER_BYTES,
    LEAD_BYTES,
    LONG_BYTES,
    BorrowedFrame,
    Control,
    Dense,
    Frame,
    Header,
    ScaledSigns,
    Signs,
    decode,
    encode,
    encode_in_place,
    encode_split,
    max_encoded_bytes,
)
from support.frame_bytes import HEADER, KEY, VALUE_TYPES, assert_same_packet, bytes_of, control_bytes_of, resealed
from support.inputs import failing_at, over_inputs
from support.packet_strategies import flags, vectors
from support.packets import BY_KIND
from support.packets.scaled_signs import scaled_sign_packets
from support.packets.signs import sign_packets, signs_of
from support.sample_packets import headers, packets, samples, samples_by_kind

MAX_COUNT = 1 << 32
WIDTH = {torch.float32: 32, torch.float64: 64, torch.bfloat16: 16}


def page() -> str:
    return files("laconic.wire").joinpath("FORMAT.md").read_text(encoding="utf-8")


def printed_frame() -> bytes:
    dump = re.findall(r"^ {4}00[0-9a-f]0  ((?:[0-9a-f]{2} ?)+)$", page(), re.MULTILINE)
    return bytes.fromhex(" ".join(dump))


def test_the_frame_shown_in_the_page_is_what_the_encoder_makes():
    sampled = printed_frame()
    vector = torch.tensor([1.0, -2.0, 3.0, -4.0, -5.0, 0.0, -0.5, 8.0, 9.0, -1.0, -1.0, -7.0])
    key = make_key(1, "worker", 3, 7, "mask")
    assert key == KEY
    assert bytes_of(signs(vector, keep=0.5, key=key, offset=2)) == sampled
    assert sampled == bytes.fromhex(
        "02 04 00 00 03 00 00 00 07 00 00 00 65 5c 31 48 01 00 00 00 16 00 00 00 00 00 09 00 00 00 00 00"
        "02 00 00 00 0c 00 00 00 c1 8e 23 26 4e 65 06 48 ff ff ff 7f ad 01"
    )
    frame = decode(sampled, max_count=14)
    assert frame.header == HEADER
    assert frame.packet is not None
    words = re.search(r"The dense form is ([-+01 ]+)\.", page())
    assert words is not None
    assert frame.packet.dense().tolist() == [float(word) for word in words[1].split()]


def test_the_split_header_in_the_page_is_what_the_encoder_makes_of_the_same_frame():
    (header,) = re.findall(r"^`((?:[0-9a-f]{2} ){31}[0-9a-f]{2})`", page(), re.MULTILINE)
    split = encode_split(decode(printed_frame(), max_count=14), torch.device("cpu"))
    assert bytes(split.header.numpy()) == bytes.fromhex(header)
    assert bytes(split.payload.numpy()) == printed_frame()[HEADER_BYTES:]


def test_the_hashes_listed_in_the_page_are_the_ones_computed():
    rows = re.findall(r"^\| ([0-9a-f]+) \| ((?:[0-9a-f]{8} ?){4}) \|$", page(), re.MULTILINE)
    assert len(rows) == 2
    for key, listed in rows:
        hashes = reference_hashing.hash32(0, 4, int(key, 16)).tolist()
        assert [f"{word % 2**32:08x}" for word in hashes] == listed.split()


def test_the_header_is_laid_out_byte_by_byte():
    header = Header(
        role="server",
        rank=0x0201,
        round=0x06050403,
        exchange=0x0807,
        weight=0x0C0B0A09,
        delivered=False,
        set_differs=True,
    )
    data = bytes_of(Dense(values=torch.tensor([1.0], dtype=torch.float64)), header)
    payload = bytes.fromhex("00000000 01000000 000000000000f03f")
    blank = bytes.fromhex("02 03 3300 0102 0708 03040506 00000000 090a0b0c 100000000000 400000000000")
    assert data == blank[:12] + struct.pack("<I", zlib.crc32(blank + payload)) + blank[16:] + payload
    assert zlib.crc32(b"123456789") == 0xCBF43926  # the CRC-32 that the page names


@over_inputs(("control", "kind"), zip(Control, ("80", "81", "82", "83", "84"), strict=True))
def test_a_control_frame_is_a_header_and_the_bits_of_used(control, kind):
    used = (True, False, False, True, True, False, True, True, False, True) if control is Control.USED else ()
    lengths = "020000000000 0a0000000000" if used else "000000000000 010000000000"
    header = bytes.fromhex(f"02 {kind} 0000 0300 0000 07000000 00000000 01000000" + lengths)
    assert control_bytes_of(control, used=used) == resealed(header + (bytes.fromhex("d9 02") if used else b""))


@over_inputs(("dtype", "values"), [(torch.float32, "0000c03f 000000c0"), (torch.bfloat16, "c03f 00c0")])
def test_dense_values_follow_their_range_little_endian(dtype, values):
    data = bytes_of(Dense(values=torch.tensor([1.5, -2.0], dtype=dtype), offset=258))
    assert data[HEADER_BYTES:] == bytes.fromhex("02010000 02000000" + values)


def test_signs_fill_bytes_from_the_lowest_bit_up():
    negative = torch.tensor([True] + 7 * [False] + [False, True])
    data = bytes_of(signs_of(negative, key=0x0807060504030201))
    assert data[HEADER_BYTES:] == bytes.fromhex("00000000 0a000000 0102030405060708 ffffffff 01 02")


def test_signs_of_which_none_is_selected_have_no_bits():
    data = bytes_of(signs_of(torch.tensor([True, False, True]), key=0, threshold=1))
    assert data[HEADER_BYTES:] == bytes.fromhex("00000000 03000000 0000000000000000 00000000")
    assert torch.equal(decode(data, 3).packet.dense(), torch.zeros(3))


@over_inputs(
    ("lengths", "fields"),
    [
        ((5,), "05000000 01000000"),
        ((2, 2, 1), "02000000 03000000"),
        ((1, 1, 1, 1, 1), "01000000 05000000"),
        ((1, 4), "00000000 02000000 01000000 04000000"),
        ((3, 1, 1), "00000000 03000000 03000000 01000000 01000000"),
    ],
)
def test_a_table_of_block_lengths_is_sent_only_where_no_size_says_it(lengths, fields):
    scales = torch.full((len(lengths),), 0.5)
    negative = torch.tensor([False, True, False, False, True])
    data = bytes_of(ScaledSigns(packed=reference_hashing.pack_bits(negative), scales=scales, lengths=lengths, offset=7))
    assert data[HEADER_BYTES:] == bytes.fromhex("07000000 05000000" + fields + len(lengths) * "0000003f" + "12")
    assert tuple(decode(data, 12).packet.lengths) == lengths


@settings(deadline=None, max_examples=150)
@given(packets, headers)
def test_what_is_read_is_what_was_written(packet, header):
    data = encode(Frame(header=header, packet=packet))
    frame = decode(data, MAX_COUNT)
    assert frame.header == header
    assert frame.control is None
    assert_same_packet(packet, frame.packet)
    assert torch.equal(packet.dense(), frame.packet.dense())
    assert (frame.packet.count, frame.packet.dtype) == (packet.count, packet.dtype)
    assert frame.packet.dense().dtype == packet.dtype
    assert decode(bytes(data.numpy()), MAX_COUNT).header == header


@given(headers, st.sampled_from(Control), st.lists(st.booleans(), min_size=1, max_size=40).map(tuple))
def test_a_control_frame_is_read_as_it_was_written(header, control, bits):
    used = bits if control is Control.USED else ()
    sent = Frame(header=header, control=control, used=used)
    data = encode(sent)
    assert decode(data, max_count=1) == sent
    assert sent.payload_bits == (len(used) or 1)
    assert sent.n_bytes == data.numel() == HEADER_BYTES + (len(used) + 7) // 8
    assert (sent.aborted, sent.skipped) == (control is Control.ABORT, control is Control.SKIP)


def test_a_frame_is_of_a_packet_or_of_a_control_and_only_used_has_bits():
    packet = Dense(values=torch.ones(1))
    for both_or_neither in ({}, {"packet": packet, "control": Control.SKIP}):
        with pytest.raises(ValueError, match=r"was given (neither|both): give it one of the two"):
            Frame(header=HEADER, **both_or_neither)
    for wrong in (
        {"packet": packet, "used": (True,)},
        {"control": Control.SKIP, "used": (True,)},
        {"control": Control.USED},
    ):
        with pytest.raises(ValueError, match="USED has them"):
            Frame(header=HEADER, **wrong)


def test_a_frame_carries_a_packet_or_says_why_it_does_not():
    packet = Dense(values=torch.ones(1))
    assert Frame.carrying(HEADER, packet) == Frame(header=HEADER, packet=packet)
    assert Frame.carrying(HEADER, None) == Frame(header=HEADER, control=Control.SKIP)
    for either in (packet, None):
        assert Frame.carrying(HEADER, either, aborted=True) == Frame(header=HEADER, control=Control.ABORT)


SPLITTABLE = {name: found for name, found in BY_KIND.items() if found.can_be_split}


@pytest.mark.parametrize("kind", SPLITTABLE)
@settings(deadline=None, max_examples=25)
@given(st.data())
@pytest.mark.slow
def test_parts_add_up_to_the_full_packet_and_travel_alone(kind, data):
    packet = data.draw(SPLITTABLE[kind].packets)
    stop = packet.offset + packet.count
    inner = st.integers(packet.offset + 1, stop - 1) if packet.count > 1 else st.nothing()
    bounds = [packet.offset, *sorted(data.draw(st.sets(inner, max_size=3) if packet.count > 1 else st.just(()))), stop]
    parts = [packet.part(start, stop) for start, stop in pairwise(bounds)]
    assert [(part.offset, part.offset + part.count) for part in parts] == list(pairwise(bounds))
    delivered = [decode(bytes_of(part), MAX_COUNT).packet for part in parts]
    assert torch.equal(torch.cat([part.dense() for part in delivered]), packet.dense())
    total, at_once = (torch.zeros(packet.count, dtype=torch.float64) for _ in range(2))
    for sent, part in zip(parts, delivered, strict=True):
        assert_same_packet(sent, part)
        part.add_to(total[part.offset - packet.offset :][: part.count])
    packet.add_to(at_once)
    assert torch.equal(total, at_once)
    if kind in ("dense", "signs", "short floats", "kept values"):  # the others say something about each part
        assert sum(part.payload_bits for part in delivered) == packet.payload_bits


@settings(deadline=None)
@given(sign_packets(), st.data())
def test_a_part_of_a_part_is_the_part_of_the_full_packet(packet, data):
    stop = packet.offset + packet.count
    bounds = sorted(data.draw(st.lists(st.integers(packet.offset, stop), min_size=4, max_size=4, unique=False)))
    outer_start, offset, last, outer_stop = bounds
    assert_same_packet(packet.part(outer_start, outer_stop).part(offset, last), packet.part(offset, last))


@settings(deadline=None)
@given(vectors(torch.float64))
def test_dense_payload_is_the_width_of_every_value(values):
    for dtype in VALUE_TYPES:
        packet = Dense(values=values.to(dtype))
        data = encode(Frame(header=HEADER, packet=packet))
        assert packet.payload_bits == WIDTH[dtype] * packet.count == 8 * (len(data) - HEADER_BYTES - 8)


@settings(deadline=None)
@given(sign_packets())
def test_signs_payload_is_exactly_the_number_selected(packet):
    n_selected = packet.count if packet.mask is None else int(packet.mask.sum())
    data = encode(Frame(header=HEADER, packet=packet))
    assert packet.payload_bits == n_selected
    assert len(data) == HEADER_BYTES + 20 + -(-n_selected // 8)


@settings(deadline=None)
@given(scaled_sign_packets())
def test_scaled_signs_payload_is_a_bit_each_and_a_width_for_every_block(packet):
    assert packet.payload_bits == packet.count + WIDTH[packet.dtype] * len(packet.lengths)


@settings(deadline=None)
@given(packets)
def test_no_payload_is_longer_than_its_bound(packet):
    longest = max_encoded_bytes(packet.count)
    assert len(bytes_of(packet)) - HEADER_BYTES <= longest


def test_the_longest_payload_is_within_the_bound():
    lengths = (1, *(999 * (2, 1)), 1)
    count = sum(lengths)
    packet = ScaledSigns(
        packed=reference_hashing.pack_bits(torch.zeros(count, dtype=torch.bool)),
        scales=torch.ones(len(lengths), dtype=torch.float64),
        lengths=lengths,
        offset=0,
    )
    assert len(bytes_of(packet)) - HEADER_BYTES <= max_encoded_bytes(count)


@settings(deadline=None)
@given(flags)
def test_a_scaled_sign_is_its_blocks_scale_with_its_sign(negative):
    count = negative.numel()
    packet = ScaledSigns(
        packed=reference_hashing.pack_bits(negative),
        scales=torch.arange(1.0, count + 1),
        lengths=(1,) * count,
        offset=0,
    )
    expected = [-(i + 1.0) if minus else i + 1.0 for i, minus in enumerate(negative.tolist())]
    assert packet.dense().tolist() == expected


@pytest.mark.parametrize("kind", samples_by_kind())
@over_inputs("shift", range(1, 9))
def test_a_slice_of_a_larger_buffer_is_read_wherever_it_starts(kind, shift):
    for name, data in samples_by_kind()[kind].items():
        buffer = torch.frombuffer(bytearray(bytes(shift) + data + bytes(3)), dtype=torch.uint8)
        elsewhere = torch.frombuffer(bytearray(bytes(shift) + data), dtype=torch.uint8, offset=shift)
        for tensor in (buffer[shift : shift + len(data)], elsewhere):
            with failing_at(name=name):
                frame = decode(tensor, max_count=50)
                assert bytes(encode(frame).numpy()) == data


def test_a_buffer_with_gaps_is_read():
    data = samples()["dense float64"]
    strided = torch.zeros(2 * len(data), dtype=torch.uint8)
    strided[::2] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    assert bytes(encode(decode(strided[::2], max_count=5)).numpy()) == data


def test_dense_values_are_read_in_place():
    data = encode(Frame(header=HEADER, packet=Dense(values=torch.tensor([1.0, 2.0]))))
    frame = decode(data, max_count=2)
    assert isinstance(frame.packet, Dense)
    assert frame.packet.values.data_ptr() == data.data_ptr() + HEADER_BYTES + 8


def test_a_strided_vector_is_sent_in_its_own_order():
    column = torch.arange(12.0).view(4, 3)[:, 1]
    assert decode(bytes_of(Dense(values=column)), 4).packet.dense().tolist() == [1.0, 4.0, 7.0, 10.0]
    assert decode(bytes_of(Dense(values=column[2:3])), 1).packet.dense().tolist() == [7.0]


def test_bfloat16_values_are_widened_and_other_types_unchanged():
    for dtype, dense_dtype in zip(VALUE_TYPES, (torch.float32, torch.float64, torch.float32), strict=True):
        packet = decode(bytes_of(Dense(values=torch.ones(3, dtype=dtype))), 3).packet
        assert packet.dense().dtype == packet.dtype == dense_dtype
        assert packet.value_type == dtype


def test_the_mask_that_a_reader_works_out_is_the_writers():
    packet = signs_of(torch.ones(1000, dtype=torch.bool), offset=77, threshold=3 << 29)
    delivered = decode(bytes_of(packet), 1077).packet
    assert isinstance(delivered, Signs)
    assert torch.equal(delivered.mask, packet.mask)


@over_inputs("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_long_dense_frame_is_the_same_bytes_in_place_and_shares_the_values_memory(dtype):
    values = torch.arange(LONG_BYTES // dtype.itemsize).to(dtype)
    frame = Frame(header=Header(role="worker", rank=1, round=2), packet=Dense(values=values, offset=3))
    borrowed = encode_in_place(frame)
    assert isinstance(borrowed, BorrowedFrame)
    assert len(borrowed.start) == LEAD_BYTES
    assert borrowed.values.data_ptr() == values.data_ptr()
    assert torch.equal(borrowed.clone(), encode(frame))
    assert borrowed.numel() == frame.n_bytes
    assert torch.equal(decode(borrowed, 3 + len(values)).packet.dense(), values.to(frame.packet.dtype))


def test_a_short_frame_and_a_control_frame_are_encoded_in_place_as_usual():
    header = Header(role="worker", rank=1, round=2)
    for frame in (Frame(header=header, packet=Dense(values=torch.ones(9))), Frame(header=header, control=Control.SKIP)):
        assert torch.equal(encode_in_place(frame), encode(frame))


@settings(deadline=None, max_examples=150)
@given(packets, st.data())
def test_a_packet_is_written_across_tensors_as_its_dense_form(packet, data):
    full = packet.dense()
    at_blocks = list(accumulate(packet.lengths)) if isinstance(packet, ScaledSigns) else []
    inner = st.sampled_from(at_blocks) if at_blocks and data.draw(st.booleans()) else st.integers(0, packet.count)
    edges = sorted({0, packet.count, *data.draw(st.lists(inner, max_size=3))})
    tensors = [torch.full((stop - start,), torch.nan, dtype=full.dtype) for start, stop in pairwise(edges)]
    packet.put_across(tensors)
    assert torch.equal(torch.cat(tensors).view(torch.uint8), full.view(torch.uint8))
