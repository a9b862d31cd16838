"""Frames whose bodies travel apart from their heads: the same bytes, under a checksum of the head alone."""

import struct

import pytest
import torch
from hypothesis import given, settings

from laconic.errors import WireError
from laconic.wire import HEAD_BYTES, Frame, SplitFrame, decode, encode, encode_split, read_opening
from support.inputs import failing_at, over_inputs
from support.sample_packets import HEAD, assert_same_packet, flipped, packets, resealed, samples, samples_by_kind

MOST = 50
SAMPLES = samples()
BY_KIND = {kind: frames for kind, frames in samples_by_kind().items() if kind != "notice"}
CPU = torch.device("cpu")


every_packet_kind = pytest.mark.parametrize("kind", BY_KIND)


def tensor_of(data: bytes) -> torch.Tensor:
    return torch.tensor(list(data), dtype=torch.uint8)


def split_of(name: str) -> tuple[bytes, bytes]:
    """Head and body."""
    frame = encode_split(decode(SAMPLES[name], MOST), CPU)
    return bytes(frame.head.numpy()), bytes(frame.body.numpy())


def read(head: bytes, body: bytes) -> Frame:
    return decode(SplitFrame(tensor_of(head), tensor_of(body)), MOST)


@every_packet_kind
def test_a_split_frame_is_the_ordinary_one_but_for_the_reserved_byte_and_the_checksum(kind):
    for name, data in BY_KIND[kind].items():
        with failing_at(name=name):
            head, body = split_of(name)
            assert body == data[HEAD_BYTES:]
            assert head == resealed(data[:7] + b"\1" + data[8:HEAD_BYTES])
            frame = read(head, body)
            assert bytes(encode(frame).numpy()) == data


@settings(deadline=None)
@given(packets)
def test_any_packet_is_read_from_a_split_frame_as_it_was(packet):
    frame = encode_split(Frame(head=HEAD, packet=packet), CPU)
    assert frame.numel() == encode(Frame(head=HEAD, packet=packet)).numel()
    read_again = decode(frame, 1 << 32)
    assert read_again.head == HEAD
    assert_same_packet(read_again.packet, packet)


@over_inputs("name", ["skip", "void"])
def test_a_notice_is_not_split(name):
    assert bytes(encode_split(decode(SAMPLES[name], MOST), CPU).numpy()) == SAMPLES[name]
    asked_for = resealed(SAMPLES[name][:7] + b"\1" + SAMPLES[name][8:])
    with pytest.raises(WireError, match="reserved byte 1, 0 body bytes: not of a split frame"):
        read(asked_for, b"")


def test_a_frame_with_nothing_on_the_device_is_not_split():
    frame = decode(SAMPLES["dense float32"], MOST)
    assert bytes(encode_split(frame, torch.device("meta")).numpy()) == SAMPLES["dense float32"]


@every_packet_kind
def test_a_split_frame_in_one_buffer_is_refused(kind):
    for name, whole in BY_KIND[kind].items():
        with failing_at(name=name):
            head, body = split_of(name)
            for data in (head, head + body, resealed(head + body)):
                with pytest.raises(WireError, match="reserved byte 1"):
                    decode(data, MOST)
            with pytest.raises(WireError, match=r"reserved byte 0, .* not of a split frame"):
                read(whole[:HEAD_BYTES], body)


@every_packet_kind
def test_no_flipped_bit_of_a_split_frames_head_goes_unseen(kind):
    for name in BY_KIND[kind]:
        head, body = split_of(name)
        for bit in range(8 * HEAD_BYTES):
            with failing_at(name=name, bit=bit), pytest.raises(WireError):
                read(flipped(head, bit), body)


@every_packet_kind
def test_a_split_frame_whose_body_was_changed_gives_an_error_or_a_packet(kind):
    for name in BY_KIND[kind]:
        head, body = split_of(name)
        for bit in range(8 * len(body)):
            with failing_at(name=name, bit=bit):
                read_whole_or_refused(head, flipped(body, bit))
        for other in (b"", body[:-1], body + b"\0"):
            with (
                failing_at(name=name, other=other),
                pytest.raises(WireError, match=f"promises {len(body)} body bytes, {len(other)} are there"),
            ):
                read(head, other)


def read_whole_or_refused(head: bytes, body: bytes) -> None:
    try:
        packet = read(head, body).packet
    except WireError:
        return
    dense = packet.dense()
    assert dense.shape == (packet.count,)
    assert packet.first + packet.count <= MOST
    assert bool(torch.isfinite(dense).all())


def test_a_head_alone_tells_whether_its_frame_is_split_and_is_refused_where_that_was_not_agreed_on():
    head, body = split_of("dense float32")
    opening = read_opening(head, len(body), may_be_split=True)
    assert (opening.is_split, opening.body_bytes) == (True, len(body))
    assert not read_opening(SAMPLES["dense float32"][:HEAD_BYTES], MOST, may_be_split=True).is_split
    with pytest.raises(WireError, match="reserved byte 1: a frame whose body travels another way, and none was agreed"):
        read_opening(head, len(body))


def test_a_hostile_split_head_is_refused_before_there_is_room_for_its_body():
    head, body = split_of("dense float32")
    for bit in range(8 * HEAD_BYTES):
        if bit != 56:  # which makes it an ordinary one, whose checksum is looked at when the body is there
            with pytest.raises(WireError):
                read_opening(flipped(head, bit), len(body), may_be_split=True)
    with pytest.raises(WireError, match=f"promises {len(body)} body bytes; at most {len(body) - 1} can"):
        read_opening(head, len(body) - 1, may_be_split=True)
    for lie in (2**37, 2**60, 2**64 - 1):
        with pytest.raises(WireError, match=f"promises {lie} body bytes"):
            read_opening(resealed(head[:16] + struct.pack("<Q", lie) + head[24:]), 1 << 37 - 1, may_be_split=True)
    with pytest.raises(WireError, match="0 body bytes: not of a split frame"):
        read_opening(resealed(head[:16] + bytes(8) + head[24:]), len(body), may_be_split=True)
    with pytest.raises(WireError, match="reserved byte 2"):
        read_opening(resealed(head[:7] + b"\2" + head[8:]), len(body), may_be_split=True)
    for cut in (0, 31):
        with pytest.raises(WireError, match=f"a head of {cut} bytes"):
            read_opening(head[:cut], len(body), may_be_split=True)
