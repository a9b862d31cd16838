"""Codes that are made while a frame is sent: the bytes and the values are those of codes that are there before."""

from dataclasses import replace

import pytest
import torch

from laconic.compressors import Quantized
from laconic.kernels import api as kernels
from laconic.kernels.reference import late_codes as reference
from laconic.wire import LONG_BYTES, BorrowedFrame, Frame, Header, OutgoingChunks, encode, encode_in_place
from support.inputs import over_inputs

HEADER = Header(role="worker", rank=1, round=3, exchange=0)
KEY, OFFSET = 9, 5


def vector_of(count, dtype=torch.float32):
    return torch.randn(count, generator=torch.Generator().manual_seed(1), dtype=dtype)


def packets_of(bits, *, replaces, count=None):
    """A vector with its packet, and the same with codes that are made late."""
    compressor, vector = Quantized(bits=bits), vector_of(8 * LONG_BYTES // bits + 12_345 if count is None else count)
    made = compressor(vector, key=KEY, offset=OFFSET)
    given = vector.clone()
    late = compressor.of_measured(given, (made.lows, made.highs), replaces=replaces, key=KEY, offset=OFFSET)
    return made, given, late


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("bits", [1, 3, 8])
def test_codes_of_a_part_are_the_references_and_replace_it(dtype, bits):
    for count in (1, 37, 20_000):
        vector = vector_of(count, dtype)
        ends = kernels.ranges(vector, [count])
        for replaces in (False, True):
            made = [(vector.clone(), torch.zeros((bits * count + 7) // 8, dtype=torch.uint8)) for _ in range(2)]
            for put_codes, (values, packed) in zip((kernels.put_codes, reference.put_codes), made, strict=True):
                put_codes(values, *ends, bits, OFFSET, KEY, packed, replaces=replaces)
            assert all(torch.equal(one, other) for one, other in zip(*made, strict=True)), (count, replaces)
            assert torch.equal(made[0][1], kernels.quantize(vector, *ends, [count], bits, OFFSET, KEY))
            expected = kernels.dequantize(made[0][1], *ends, [count], bits) if replaces else vector
            assert torch.equal(made[0][0], expected)


@over_inputs("bits", [3, 8])
@over_inputs("replaces", [False, True])
def test_a_frame_is_the_same_whether_its_codes_are_made_before_or_while_it_is_sent(bits, replaces):
    expected, values, late = packets_of(bits, replaces=replaces)
    frame = encode_in_place(Frame(header=HEADER, packet=late))
    assert isinstance(frame, BorrowedFrame)
    assert "packed" not in late.__dict__, "none is made yet"
    chunks = OutgoingChunks(frame)
    sent = torch.cat([chunks.prefix, *(message.clone() for message in chunks.messages())])
    chunks = OutgoingChunks(encode(Frame(header=HEADER, packet=expected)))
    assert torch.equal(sent, torch.cat([chunks.prefix, *chunks.messages()]))
    assert torch.equal(late.packed, expected.packed)
    assert torch.equal(values, expected.dense() if replaces else vector_of(expected.count))


def test_whatever_reads_codes_makes_them():
    for number, read in enumerate((
        lambda packet: packet.packed,
        lambda packet: packet.dense(),
        lambda packet: packet.codes,
        lambda packet: encode(Frame(header=HEADER, packet=packet)),
        lambda packet: encode_in_place(Frame(header=HEADER, packet=packet)).clone(),
        lambda packet: packet.as_read().packed,
        lambda packet: packet.part(OFFSET + 100, OFFSET + 999).packed,
        lambda packet: replace(packet, offset=0).packed,
    )):  # fmt: skip
        expected, _, late = packets_of(8, replaces=True)
        assert torch.equal(read(late), read(expected)), number
    with pytest.raises(AttributeError, match="nothing"):
        _ = late.nothing


def test_what_replaces_a_vector_is_taken_once_and_only_when_it_is_complete():
    expected, values, late = packets_of(8, replaces=True)
    codes = late.late_codes
    codes.make(LONG_BYTES // 2)
    assert codes.take(expected) is None, "another packet"
    as_read = late.as_read()
    assert codes.take(as_read) is values
    assert torch.equal(values, expected.dense())
    assert codes.take(as_read) is None
    _, _, unchanged = packets_of(8, replaces=False)
    assert unchanged.late_codes.take(unchanged.as_read()) is None, "the vector stays as it is"


def test_codes_of_a_short_vector_are_made_at_once():
    _, _, packet = packets_of(8, replaces=True, count=5000)
    assert packet.late_codes is None
