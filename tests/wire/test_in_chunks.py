"""Long frames whose checksum travels last. FORMAT.md, section 1.4."""

from zlib import crc32

import pytest
import torch

from laconic.compressors import QSGD, Natural, Quantized, ScaledSign
from laconic.kernels.api import largest_and_checksum
from laconic.wire import (
    CHECKSUM_BYTES,
    CHUNK_BYTES,
    LEAD_BYTES,
    LONG_BYTES,
    PREFIX_BYTES,
    BorrowedFrame,
    ChunkReader,
    Dense,
    Frame,
    Header,
    LandedFrame,
    OutgoingChunks,
    WireError,
    decode,
    encode,
    encode_in_place,
    start_of,
)

COUNT = (CHUNK_BYTES + LONG_BYTES) // 4


def frame_of(values: torch.Tensor) -> Frame:
    return Frame(header=Header(role="worker", rank=1, round=2), packet=Dense(values=values, offset=3))


def bytes_of(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.numpy())


def landed(messages: list[torch.Tensor], dtype: torch.dtype = torch.float32, *, is_dense: bool = True) -> LandedFrame:
    """What a receiver makes of a prefix and the messages after it."""
    prefix, *chunks, checksum = messages
    start = start_of(bytes_of(prefix))
    reader = ChunkReader(start, dtype, is_dense=is_dense)
    for chunk in chunks:
        reader.read(chunk)
    data = start[:12] + bytes_of(checksum) + start[16:] + b"".join(map(bytes_of, chunks))
    return LandedFrame(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), reader.checksum, reader.values
    )  # fmt: skip


def messages_of(data: torch.Tensor | BorrowedFrame) -> list[torch.Tensor]:
    outgoing = OutgoingChunks(data)
    return [outgoing.prefix, *(message.clone() for message in outgoing.messages())]


def test_the_messages_are_the_frames_bytes_in_the_order_of_the_page_each_once():
    frame = frame_of(torch.randn(COUNT))
    expected = bytes_of(encode(frame))
    for data in (encode(frame), encode_in_place(frame)):
        prefix, *chunks, checksum = messages_of(data)
        assert bytes_of(prefix) == expected[:12] + expected[36:40] + expected[16:36]
        assert [chunk.numel() for chunk in chunks] == [CHUNK_BYTES, LONG_BYTES]
        assert b"".join(map(bytes_of, chunks)) == expected[LEAD_BYTES:]
        assert bytes_of(checksum) == expected[12:16]
    assert PREFIX_BYTES + CHECKSUM_BYTES == LEAD_BYTES


def test_a_frame_read_in_chunks_is_the_frame_and_knows_its_largest_magnitude():
    for dtype in (torch.float32, torch.float64):
        values = torch.randn(COUNT, dtype=dtype)
        values[-2] = -9.0
        arrived = landed(messages_of(encode_in_place(frame_of(values))), dtype)
        assert torch.equal(arrived.data, encode(frame_of(values)))
        packet = decode(arrived, COUNT + 3).packet
        assert isinstance(packet, Dense)
        assert torch.equal(packet.values, values)
        assert vars(packet)["absolute_maximum"] == 9.0  # known without a look at the values


@pytest.mark.parametrize("number", [0, 1, 2, 3], ids=["prefix", "chunk", "last chunk", "checksum"])
def test_a_damaged_message_is_refused(number):
    messages = messages_of(encode_in_place(frame_of(torch.ones(COUNT))))
    messages[number][5 % messages[number].numel()] ^= 1
    with pytest.raises(WireError, match=r"checksum|version|payload bytes|coordinates"):
        decode(landed(messages), COUNT + 3)


def test_inf_and_nan_in_any_chunk_are_refused():
    for at in (0, COUNT // 2, COUNT - 1):
        for value in (float("inf"), float("nan")):
            values = torch.ones(COUNT)
            values[at] = value
            arrived = landed(messages_of(encode_in_place(frame_of(values))))
            with pytest.raises(WireError, match="dense: inf or NaN among the values"):
                decode(arrived, COUNT + 3)


def test_a_checksum_that_is_known_is_not_made_again_until_the_values_change():
    values = torch.randn(COUNT)
    expected = messages_of(encode(frame_of(values)))
    wrong = (crc32(bytes_of(values)) + 1) % 2**32
    for known, holds in ((crc32(bytes_of(values)), True), (wrong, False)):
        frame = frame_of(values)
        frame.packet.measured(float(values.abs().max()), known)
        borrowed = encode_in_place(frame)
        messages = messages_of(borrowed)
        assert (bytes_of(messages[-1]) == bytes_of(expected[-1])) is holds
        assert torch.equal(borrowed.clone(), encode(frame))
        assert decode(borrowed, COUNT + 3).packet.values.equal(values)
        values.neg_()
        changed = messages_of(encode_in_place(frame))
        assert bytes_of(changed[-1]) == bytes_of(messages_of(encode(frame_of(values)))[-1])
        values.neg_()


def test_what_is_known_of_a_part_goes_with_it_until_the_values_change():
    values, middle = torch.randn(2 * COUNT), COUNT + 1
    parts = {(0, middle): (9.0, 1), (middle, 2 * COUNT): (7.0, crc32(bytes_of(values[middle:])))}
    packet = Dense(values=values, offset=3).measured(9.0).with_parts(parts)
    assert packet.known_checksum() is None
    part = packet.part(middle + 3, 2 * COUNT + 3)
    assert (part.absolute_maximum, part.known_checksum()) == (7.0, crc32(bytes_of(values[middle:])))
    assert packet.part(4, middle + 3).known_checksum() is None, "another part"
    values[-1] = 100.0
    assert part.known_checksum() is None
    assert packet.part(middle + 3, 2 * COUNT + 3).absolute_maximum == 100.0


def test_codes_are_sent_from_where_they_are_and_only_fields_are_copied():
    values = torch.randn(CHUNK_BYTES + LONG_BYTES)
    for compressor in (Quantized(), Quantized(blocks="1000"), Quantized(bits=4), QSGD(), Quantized(entropy=True)):
        packet = compressor(values, key=3, offset=3)
        frame = Frame(header=Header(role="worker", rank=1, round=2), packet=packet)
        expected, borrowed = encode(frame), encode_in_place(frame)
        assert isinstance(borrowed, BorrowedFrame)
        assert borrowed.values.data_ptr() == packet.stream[0].data_ptr()
        assert borrowed.numel() == frame.n_bytes == len(expected)
        assert torch.equal(borrowed.clone(), expected)
        for data in (expected, borrowed):
            messages = messages_of(data)
            assert b"".join(map(bytes_of, messages[1:-1])) == bytes_of(expected[LEAD_BYTES:])
            assert all(len(message) == CHUNK_BYTES for message in messages[1:-2])
            arrived = landed(messages, is_dense=False)
            assert torch.equal(arrived.data, expected)
            assert torch.equal(decode(arrived, 3 + len(values)).packet.dense(), packet.dense())
        messages[-2][-1] ^= 1
        with pytest.raises(WireError, match="checksum"):
            decode(landed(messages, is_dense=False), 3 + len(values))


def test_frames_with_long_fields_and_of_other_kinds_are_encoded_as_one():
    values = torch.randn(LONG_BYTES)
    for compressor in (Quantized(blocks="16"), Natural(), ScaledSign(blocks="8")):
        frame = Frame(header=Header(role="worker", rank=1, round=2), packet=compressor(values, key=3))
        assert torch.equal(encode_in_place(frame), encode(frame))


def test_values_that_were_looked_at_as_they_came_are_not_read_again_and_their_checksum_is_known():
    values = torch.randn(COUNT)
    prefix, *chunks, _ = messages_of(encode(frame_of(values)))
    reader = ChunkReader(start_of(bytes_of(prefix)), torch.float32)
    for chunk in chunks:
        reader.read(torch.empty_like(chunk), largest_and_checksum(chunk.view(torch.float32)))  # of what is not there
    data = encode(frame_of(values))
    packet = decode(LandedFrame(data, reader.checksum, reader.values), COUNT + 3).packet
    assert packet.known_checksum() == crc32(values.numpy().tobytes())
    assert vars(packet)["absolute_maximum"] == float(values.abs().max())


def test_a_wrong_look_at_values_that_came_is_found():
    prefix, *chunks, _ = messages_of(encode(frame_of(torch.randn(COUNT))))
    reader = ChunkReader(start_of(bytes_of(prefix)), torch.float32)
    for chunk in chunks:
        reader.read(chunk, (9.0, 1))
    with pytest.raises(WireError, match="checksum"):
        decode(LandedFrame(encode(frame_of(torch.randn(COUNT))), reader.checksum, reader.values), COUNT)
