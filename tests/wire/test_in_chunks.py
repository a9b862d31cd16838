"""Long dense frames whose checksum travels last. FORMAT.md, section 1.4."""

import pytest
import torch

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


def landed(messages: list[torch.Tensor], dtype: torch.dtype = torch.float32) -> LandedFrame:
    """What a receiver makes of a prefix and the messages after it."""
    prefix, *chunks, checksum = messages
    start = start_of(bytes_of(prefix))
    reader = ChunkReader(start, dtype)
    for chunk in chunks:
        reader.read(chunk)
    data = start[:12] + bytes_of(checksum) + start[16:] + b"".join(map(bytes_of, chunks))
    return LandedFrame(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), reader.checksum, reader.absolute_maximum
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
