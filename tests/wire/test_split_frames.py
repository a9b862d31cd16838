"""Frames whose payloads travel apart from their headers: the same bytes, under a checksum of the header alone."""

import pytest
import torch
from hypothesis import given, settings

from laconic.errors import WireError
from laconic.wire import HEADER_BYTES, Frame, SplitFrame, decode, encode, encode_split, read_payload_info
from support.frame_bytes import HEADER, assert_same_packet, flipped, resealed, with_promise
from support.inputs import failing_at, over_inputs
from support.sample_packets import packets, samples, samples_by_kind

MAX_COUNT = 50
SAMPLES = samples()
BY_KIND = {kind: frames for kind, frames in samples_by_kind().items() if kind != "control"}
CPU = torch.device("cpu")


every_packet_kind = pytest.mark.parametrize("kind", BY_KIND)


def tensor_of(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def split_of(name: str) -> tuple[bytes, bytes]:
    """Header and payload."""
    frame = encode_split(decode(SAMPLES[name], MAX_COUNT), CPU)
    return bytes(frame.header.numpy()), bytes(frame.payload.numpy())


def split_flag_set(data: bytes) -> bytes:
    return resealed(data[:2] + bytes([data[2] | 8]) + data[3:])


def read(header: bytes, payload: bytes) -> Frame:
    return decode(SplitFrame(tensor_of(header), tensor_of(payload)), MAX_COUNT)


@every_packet_kind
def test_a_split_frame_is_the_ordinary_one_but_for_its_flag_and_the_checksum(kind):
    for name, data in BY_KIND[kind].items():
        with failing_at(name=name):
            header, payload = split_of(name)
            assert payload == data[HEADER_BYTES:]
            assert header == split_flag_set(data[:HEADER_BYTES])
            frame = read(header, payload)
            assert bytes(encode(frame).numpy()) == data


@settings(deadline=None)
@given(packets)
def test_any_packet_is_read_from_a_split_frame_as_it_was(packet):
    frame = encode_split(Frame(header=HEADER, packet=packet), CPU)
    assert frame.numel() == encode(Frame(header=HEADER, packet=packet)).numel()
    read_again = decode(frame, 1 << 32)
    assert read_again.header == HEADER
    assert_same_packet(read_again.packet, packet)


@over_inputs("name", samples_by_kind()["control"])
def test_a_control_frame_is_not_split(name):
    data = SAMPLES[name]
    assert bytes(encode_split(decode(data, MAX_COUNT), CPU).numpy()) == data
    with pytest.raises(WireError, match=f"split flag 1, kind {data[1]}, .* payload bytes: not of a split frame"):
        read(split_flag_set(data[:HEADER_BYTES]), data[HEADER_BYTES:])


def test_a_frame_with_nothing_on_the_device_is_not_split():
    frame = decode(SAMPLES["dense float32"], MAX_COUNT)
    assert bytes(encode_split(frame, torch.device("meta")).numpy()) == SAMPLES["dense float32"]


@every_packet_kind
def test_a_split_frame_in_one_buffer_is_refused(kind):
    for name, full in BY_KIND[kind].items():
        with failing_at(name=name):
            header, payload = split_of(name)
            for data in (header, header + payload, resealed(header + payload)):
                with pytest.raises(WireError, match="a split frame, whose payload travels apart"):
                    decode(data, MAX_COUNT)
            with pytest.raises(WireError, match=r"split flag 0, .* not of a split frame"):
                read(full[:HEADER_BYTES], payload)


@every_packet_kind
def test_no_flipped_bit_of_a_split_frames_header_goes_unseen(kind):
    for name in BY_KIND[kind]:
        header, payload = split_of(name)
        for bit in range(8 * HEADER_BYTES):
            with failing_at(name=name, bit=bit), pytest.raises(WireError):
                read(flipped(header, bit), payload)


@pytest.mark.slow
@every_packet_kind
def test_a_split_frame_whose_payload_was_changed_gives_an_error_or_a_packet(kind):
    for name in BY_KIND[kind]:
        header, payload = split_of(name)
        for bit in range(8 * len(payload)):
            with failing_at(name=name, bit=bit):
                read_in_full_or_refused(header, flipped(payload, bit))
        for other in (b"", payload[:-1], payload + b"\0"):
            with (
                failing_at(name=name, other=other),
                pytest.raises(WireError, match=f"promises {len(payload)} payload bytes, {len(other)} are there"),
            ):
                read(header, other)


def read_in_full_or_refused(header: bytes, payload: bytes) -> None:
    try:
        packet = read(header, payload).packet
    except WireError:
        return
    dense = packet.dense()
    assert dense.shape == (packet.count,)
    assert packet.offset + packet.count <= MAX_COUNT
    assert bool(torch.isfinite(dense).all())


def test_a_header_alone_shows_whether_its_frame_is_split_and_is_refused_where_that_was_not_agreed_on():
    header, payload = split_of("dense float32")
    info = read_payload_info(header, len(payload), may_be_split=True)
    assert (info.is_split, info.encoded_bytes) == (True, len(payload))
    assert not read_payload_info(SAMPLES["dense float32"][:HEADER_BYTES], MAX_COUNT, may_be_split=True).is_split
    with pytest.raises(
        WireError, match="a split frame, whose payload travels apart from its header, and none was agreed"
    ):
        read_payload_info(header, len(payload))


def test_a_hostile_split_header_is_refused_before_a_buffer_is_made():
    header, payload = split_of("dense float32")
    for bit in range(8 * HEADER_BYTES):
        if bit != 19:  # which makes it an ordinary one, whose checksum is looked at when the payload is there
            with pytest.raises(WireError):
                read_payload_info(flipped(header, bit), len(payload), may_be_split=True)
    with pytest.raises(WireError, match=f"promises {len(payload)} payload bytes; at most {len(payload) - 1} can"):
        read_payload_info(header, len(payload) - 1, may_be_split=True)
    for wrong in (2**37, 2**40, 2**48 - 1):
        with pytest.raises(WireError, match=f"promises {wrong} payload bytes"):
            read_payload_info(with_promise(header, payload_bytes=wrong), 1 << 37 - 1, may_be_split=True)
    with pytest.raises(WireError, match="0 payload bytes: not of a split frame"):
        read_payload_info(with_promise(header, payload_bytes=0), len(payload), may_be_split=True)
    with pytest.raises(WireError, match="flags 0x0048"):
        read_payload_info(resealed(header[:2] + b"\x48" + header[3:]), len(payload), may_be_split=True)
    for n_left in (0, 31):
        with pytest.raises(WireError, match=f"a header of {n_left} bytes"):
            read_payload_info(header[:n_left], len(payload), may_be_split=True)
