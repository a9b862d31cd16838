"""Codes of tensors that make one vector: the bits of codes of that vector, wherever tensors and blocks end."""

import pytest
import torch

from laconic.kernels import api as kernels
from laconic.kernels.reference import gathered_codes as reference
from support.inputs import over_inputs

SIZES = [700, 0, 1, 31, 1, 3, 2000, 65, 40, 5, 1154]
D = sum(SIZES)
LENGTHS = [
    (D,),
    tuple(size for size in SIZES if size),
    (500,) * (D // 500),
    (64,) * (D // 64) + (D % 64,),
    (2,) * (D // 2),
]


def tensors_of(dtype):
    vector = torch.randn(D, generator=torch.Generator().manual_seed(6), dtype=dtype)
    shaped = list(vector.split(SIZES))
    shaped[6] = shaped[6].view(40, 50)
    return shaped, vector


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("lengths", LENGTHS)
def test_ranges_and_codes_of_tensors_are_those_of_the_vector_that_they_make(lengths, dtype):
    tensors, vector = tensors_of(dtype)
    ends = kernels.ranges_of_tensors(tensors, lengths)
    for found, of_reference, expected in zip(
        ends, reference.ranges_of_tensors(tensors, lengths), kernels.ranges(vector, lengths), strict=True
    ):
        assert torch.equal(found, expected)
        assert torch.equal(of_reference, expected)
    for bits in (1, 3, 8):
        arguments = (*ends, lengths, bits, 5, 9)
        expected = kernels.quantize(vector, *arguments)
        assert torch.equal(kernels.quantize_tensors(tensors, *arguments), expected), bits
        assert torch.equal(reference.quantize_tensors(tensors, *arguments), expected), bits


def test_tensors_with_other_strides_have_the_same_codes():
    tensors, vector = tensors_of(torch.float32)
    tensors[6] = tensors[6].t().contiguous().t()
    lows, highs = kernels.ranges_of_tensors(tensors, [D])
    assert (lows, highs) == (vector.min(), vector.max())
    expected = kernels.quantize(vector, lows, highs, [D], 8, 0, 1)
    assert torch.equal(kernels.quantize_tensors(tensors, lows, highs, [D], 8, 0, 1), expected)


def test_ends_of_tensors_show_signs_of_zeros_and_what_is_not_finite():
    for value, place in ((torch.nan, 3), (-torch.nan, 700), (torch.inf, 710), (-torch.inf, D - 1), (-0.0, 5)):
        vector = torch.zeros(D)
        vector[place] = value
        for found, expected in zip(
            kernels.ranges_of_tensors(vector.split(SIZES), [D]), kernels.ranges(vector, [D]), strict=True
        ):
            assert torch.equal(found.view(torch.int32), expected.view(torch.int32)), value


def test_tensors_of_two_types_and_of_other_lengths_are_refused():
    one, other = torch.ones(3), torch.ones(3, dtype=torch.float64)
    for error, message, tensors, lengths in (
        (TypeError, "must be all torch.float32 or all torch.float64", [one, other], [6]),
        (TypeError, "torch.int64; they must be", [torch.ones(3, dtype=torch.int64)], [3]),
        (ValueError, "number of tensors=0", [], [3]),
        (ValueError, "they must have 4", [one], [4]),
    ):
        with pytest.raises(error, match=message):
            kernels.ranges_of_tensors(tensors, lengths)
