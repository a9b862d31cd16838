"""Scaled signs on a keyed mask: their scale, their error, and what a reader refuses of them."""

import pytest
import torch

from laconic.compressors import ScaledSign, SelectedSign
from laconic.errors import WireError
from laconic.wire import SelectedSigns, decode
from support.frame_bytes import KEY, bytes_of
from support.inputs import over_inputs
from support.packets.signs import signs_of

VECTOR = torch.randn(500, generator=torch.Generator().manual_seed(5))


def test_the_scale_is_the_mean_magnitude_of_the_elements_that_are_sent():
    packet = SelectedSign(keep=0.3)(VECTOR, key=KEY)
    mask = packet.signs.mask
    assert 100 < int(mask.sum()) < 200
    assert float(packet.scale) == pytest.approx(float(VECTOR[mask].abs().mean()))
    assert torch.equal(packet.dense().ne(0), mask)
    assert torch.equal(packet.dense()[mask].sign(), VECTOR[mask].sign())


def test_the_error_is_the_smallest_that_a_scale_on_the_mask_leaves():
    packet = SelectedSign(keep=0.3)(VECTOR, key=KEY)
    sent = VECTOR[packet.signs.mask]
    error = (packet.dense() - VECTOR).square().sum()
    assert float(error) == pytest.approx(float(VECTOR.square().sum() - sent.abs().sum() ** 2 / len(sent)), rel=1e-5)


def test_all_elements_give_the_scaled_signs_of_one_block():
    assert torch.equal(SelectedSign(keep=1.0)(VECTOR).dense(), ScaledSign(blocks="vector")(VECTOR).dense())


def test_a_share_of_the_bits_and_one_scale_are_counted():
    packet = SelectedSign(keep=0.3)(VECTOR, key=KEY)
    assert packet.paper_bits == pytest.approx(0.3 * 500 + 32)
    assert packet.payload_bits == int(packet.signs.mask.sum()) + 32


def test_a_part_without_signs_has_no_scale():
    packet = SelectedSigns(signs=signs_of(VECTOR < 0, threshold=1 << 29), scale=torch.tensor([2.0]))
    mask = packet.signs.mask.tolist()
    nothing = next(start for start in range(499) if not any(mask[start : start + 2]))
    part = packet.part(nothing, nothing + 2)
    assert float(part.scale) == 0
    assert torch.equal(part.dense(), torch.zeros(2))


REFUSED = {
    "a negative scale": (1 << 32, -0.5, "negative, inf or NaN"),
    "an infinite scale": (1 << 32, float("inf"), "negative, inf or NaN"),
    "a scale of no sign": (1, 0.5, "a scale of no sign must be 0"),
}  # fmt: skip


@over_inputs("case", REFUSED)
def test_a_reader_refuses_a_scale_that_no_writer_sends(case):
    threshold, scale, words = REFUSED[case]
    packet = SelectedSigns(signs=signs_of(VECTOR[:9] < 0, threshold=threshold), scale=torch.tensor([scale]))
    with pytest.raises(WireError, match=words):
        decode(bytes_of(packet), 9)
