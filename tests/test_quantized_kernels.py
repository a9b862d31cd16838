"""The compiled randomized rounding gives what the plain one gives, bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels import compiled, plain_quantized
from packets import block_lengths, vectors

pytestmark = pytest.mark.skipif(not compiled.available(), reason="needs numba")
if compiled.available():
    from laconic.kernels import cpu_quantized

keys = st.integers(0, 2**64 - 1)
firsts = st.integers(0, 2**32 - 41)


def ends_of(vector, lengths):
    blocks = vector.split(list(lengths))
    return torch.stack([block.min() for block in blocks]), torch.stack([block.max() for block in blocks])


def assert_alike(name, *arguments):
    plain, made = (getattr(version, name)(*arguments) for version in (plain_quantized, cpu_quantized))
    assert made.dtype == plain.dtype
    assert torch.equal(made, plain)
    assert torch.equal(made.signbit(), plain.signbit())
    return made


@settings(deadline=None, max_examples=100)
@given(st.data(), st.sampled_from((torch.float32, torch.float64)), st.integers(1, 8), firsts, keys)
def test_codes_and_knobs_are_alike(data, dtype, bits, first, key):
    largest = 1.7e308 if dtype == torch.float64 else 2.0**127
    vector = data.draw(vectors(dtype, largest))
    lengths = data.draw(block_lengths(len(vector)))
    lows, highs = ends_of(vector, lengths)
    codes = assert_alike("quantize", vector, lows, highs, lengths, bits, first, key)
    assert_alike("dequantize", codes, lows, highs, lengths, bits)


@settings(deadline=None, max_examples=100)
@given(st.data(), st.sampled_from((torch.float32, torch.float64)), st.integers(1, 255), firsts, keys)
def test_levels_and_their_parts_of_the_scale_are_alike(data, dtype, steps, first, key):
    vector = data.draw(vectors(dtype))
    lengths = data.draw(block_lengths(len(vector)))
    _, highs = ends_of(vector.abs(), lengths)
    scales = (highs * data.draw(st.floats(1, 4, width=32))).to(dtype)
    levels = assert_alike("quantize_levels", vector, scales, lengths, steps, first, key)
    assert_alike("levels_dense", levels, scales, lengths, steps)


@pytest.mark.parametrize("first", [0, 2**31 - 500, 2**32 - 5003])
def test_long_vectors_are_alike_too(first):
    vector = torch.randn(5003, generator=torch.Generator().manual_seed(1))
    for lengths in ((5003,), (2500, 2500, 3), (1, 5002)):
        lows, highs = ends_of(vector, lengths)
        codes = assert_alike("quantize", vector, lows, highs, lengths, 5, first, 99)
        assert_alike("dequantize", codes, lows.double(), highs.double(), lengths, 5)
        levels = assert_alike("quantize_levels", vector, highs.abs() + 4, lengths, 100, first, 99)
        assert_alike("levels_dense", levels, highs.abs(), lengths, 100)


def test_what_is_not_a_number_is_rounded_alike():
    wrong = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 0.0])
    for low, high in ((0.0, 1.0), (float("nan"), 1.0), (-float("inf"), float("inf"))):
        ends = torch.tensor([low]), torch.tensor([high])
        assert_alike("quantize", wrong, *ends, (5,), 3, 0, 1)
    for scale in (1.0, 0.0, float("nan")):
        assert_alike("quantize_levels", wrong, torch.tensor([scale]), (5,), 7, 0, 1)
