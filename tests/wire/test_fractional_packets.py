"""The fractional packet's own rules; what all kinds have in common is in test_frames.py and test_hostile.py."""

import pytest
import torch

from laconic.errors import WireError
from laconic.wire import HEADER_BYTES, decode, max_encoded_bytes
from support.frame_bytes import bytes_of, flipped, patched, resealed
from support.inputs import over_inputs
from support.packets.fractional import fractional_of

NEGATIVE = torch.tensor([True, False, False, True, False])
LEVELS = [0, 1, 3, 2, 3]
PACKET = fractional_of(NEGATIVE, LEVELS, means=torch.tensor([8, 4, 0, 0.5]), bits=3, offset=258)


def test_means_and_then_codes_with_the_sign_on_top_follow_the_fields():
    means = "00000041 00008040 00000000 0000003f"
    codes = 0b100 | 0b001 << 3 | 0b011 << 6 | 0b110 << 9 | 0b011 << 12
    payload = bytes.fromhex("02010000 05000000 03000000" + means) + codes.to_bytes(2, "little")
    assert bytes_of(PACKET)[HEADER_BYTES:] == payload
    assert decode(bytes_of(PACKET), 300).packet.dense().tolist() == [-8.0, 4.0, 0.5, -0.0, 0.5]


def test_a_fractional_packet_counts_its_bits_and_names_its_means():
    for dtype, width in ((torch.float32, 32), (torch.float64, 64)):
        packet = fractional_of(NEGATIVE, LEVELS, means=PACKET.means.to(dtype), bits=3)
        assert packet.paper_bits == 15
        assert packet.named_overheads == {"level means": 4 * width}
        assert packet.payload_bits == 15 + 4 * width
        assert packet.dense().dtype == dtype


def test_a_fractional_packet_adds_its_dense_form():
    total = torch.ones(5)
    PACKET.add_to(total)
    assert torch.equal(total, 1 + PACKET.dense())


def test_the_longest_table_of_means_about_one_coordinate_is_within_the_bound():
    packet = fractional_of(NEGATIVE[:1], [32767], means=torch.ones(1 << 15, dtype=torch.float64), bits=16)
    data = bytes_of(packet)
    assert len(data) - HEADER_BYTES == 12 + 8 * (1 << 15) + 2 <= max_encoded_bytes(1)
    assert torch.equal(decode(data, 1).packet.levels, packet.levels)


@over_inputs("bits", [0, 17, 32, 2**31, 2**32 - 1])
def test_a_width_outside_one_to_sixteen_is_refused(bits):
    with pytest.raises(WireError, match=rf"fractional: {bits} bits a value; 1 \.\. 16 are allowed"):
        decode(patched(bytes_of(PACKET), HEADER_BYTES + 8, "I", bits), 300)


@over_inputs("dtype", [torch.float32, torch.float64, torch.bfloat16])
@over_inputs("wrong", [float("inf"), float("nan"), -float("inf"), -1e-30])
def test_a_mean_that_is_negative_or_not_finite_is_refused(dtype, wrong):
    packet = fractional_of(NEGATIVE, LEVELS, means=torch.tensor([8, 4, wrong, 0.5]).to(dtype), bits=3)
    assert packet.finite == (wrong == -1e-30)
    with pytest.raises(WireError, match="a mean is negative, inf or NaN"):
        decode(bytes_of(packet), 300)


def test_padding_that_is_not_zero_is_refused():
    data = bytes_of(PACKET)
    with pytest.raises(WireError, match="padding"):
        decode(resealed(flipped(data, 8 * len(data) - 1)), 300)
