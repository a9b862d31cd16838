"""The compiled randomized rounding gives what the plain one gives, bit for bit."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.kernels.api import BlockLengths, pack_codes
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import stochastic_rounding as reference_stochastic_rounding
from support.frame_bytes import VALUE_TYPES
from support.inputs import over_inputs
from support.packet_strategies import block_lengths, vectors

pytestmark = pytest.mark.skipif(not compiled.numba_available(), reason="needs numba")
if compiled.numba_available():
    from laconic.kernels.cpu import stochastic_rounding as cpu_stochastic_rounding

keys = st.integers(0, 2**64 - 1)
firsts = st.integers(0, 2**32 - 41)


def assert_alike(name, *arguments):
    reference, made = (
        getattr(version, name)(*arguments) for version in (reference_stochastic_rounding, cpu_stochastic_rounding)
    )
    assert_same(made, reference)
    return made


def assert_same(made, reference):
    """The same bits; NaNs are all alike."""
    assert made.dtype == reference.dtype
    assert made.shape == reference.shape
    assert torch.equal(made.isnan(), reference.isnan())
    assert torch.equal(made.nan_to_num(), reference.nan_to_num())
    assert torch.equal(made.signbit() & ~made.isnan(), reference.signbit() & ~reference.isnan())


def assert_added_alike(name, *arguments):
    count = sum(arguments[-2])
    for dtype in VALUE_TYPES:
        total = torch.linspace(-3, 3, count).to(dtype)
        strided = torch.zeros(2 * count, dtype=dtype)[::2].copy_(total)
        for start in (total, strided):
            reference, made = start.clone(), start.clone(memory_format=torch.preserve_format)
            getattr(reference_stochastic_rounding, name)(*arguments, reference)
            getattr(cpu_stochastic_rounding, name)(*arguments, made)
            assert_same(made, reference)


DTYPES = [torch.float32, torch.float64]
LENGTHS = {
    "one block": lambda d: (d,),
    "blocks of 512": lambda d: BlockLengths.uniform(512, d),
    "blocks of 7": lambda d: BlockLengths.uniform(7, d),
    "uneven blocks": lambda d: (1, d - 1) if d > 1 else (1,),
}


@functools.cache
def inputs(dtype):
    """Vectors of every kind that a kernel might do wrong, by name."""
    sampled = torch.randn(3001, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    finite = torch.finfo(dtype)
    tiny = sampled.to(dtype) * (4 * finite.smallest_normal * finite.eps)
    made = {
        "normal": sampled,
        "heavy-tailed": sampled.sign() * torch.exp2(12 * sampled),
        "far from zero": 1000 + sampled,
        "constant": torch.full_like(sampled, -0.7),
        "zero": torch.zeros_like(sampled),
        "negative zeros": torch.where(sampled < 0, -0.0, 0.0),
        "extreme": sampled.clamp(-1, 1) * finite.max,
        "nearly extreme": sampled.clamp(0, 1) * finite.max,
        "one large": torch.where(torch.arange(3001) == 5, finite.max, sampled),
    }
    return {name: vector.to(dtype) for name, vector in made.items()} | {"denormal": tiny}


CASES = [(dtype, name) for dtype in DTYPES for name in inputs(torch.float32)]


@pytest.mark.slow
@over_inputs("blocks", LENGTHS)
@over_inputs(("dtype", "name"), CASES)
def test_every_kernel_gives_the_reference_bits(dtype, name, blocks):
    full = inputs(dtype)[name]
    for d in (1, 1030):
        vector, lengths = full[:d], LENGTHS[blocks](d)
        reference_ends, ends = (
            version.ranges(vector, lengths) for version in (reference_stochastic_rounding, cpu_stochastic_rounding)
        )
        for made, reference in zip(ends, reference_ends, strict=True):
            assert_same(made, reference)
        scales = assert_alike("absolute_maxima", vector, lengths)
        for bits in (1, 2, 3, 4, 8):
            packed = assert_alike("quantize", vector, *ends, lengths, bits, 2**32 - 3001, 99)
            assert packed.numel() == (bits * d + 7) // 8
            assert_alike("dequantize", packed, *ends, lengths, bits)
        for steps in (1, 7, 100, 255):
            packed = assert_alike("quantize_levels", vector, scales, lengths, steps, 7, 99)
            assert reference_stochastic_rounding.levels_allowed(packed, d, steps)
            assert cpu_stochastic_rounding.levels_allowed(packed, d, steps)
            assert_alike("levels_dense", packed, scales, lengths, steps)


@over_inputs("blocks", LENGTHS)
@over_inputs(("dtype", "name"), CASES)
def test_norms_are_the_reference_ones_but_for_the_last_bits(dtype, name, blocks):
    vector = inputs(dtype)[name]
    lengths = LENGTHS[blocks](3001)
    reference, made = (
        version.norms(vector, lengths) for version in (reference_stochastic_rounding, cpu_stochastic_rounding)
    )
    assert made.dtype == dtype
    tolerance = 2.0**-22 if dtype == torch.float32 else 2.0**-40
    torch.testing.assert_close(made, reference, rtol=tolerance, atol=torch.finfo(dtype).smallest_normal * 2 * tolerance)
    assert bool((made >= reference_stochastic_rounding.absolute_maxima(vector, lengths)).all())


@pytest.mark.slow
@over_inputs("bits", range(1, 9))  # of levels one more, so nine too
@over_inputs("end_type", VALUE_TYPES)
def test_what_is_added_is_the_dense_form(bits, end_type):
    vector = inputs(torch.float32)["normal"][:2051]
    lengths = (1000, 3, 1048)
    ends = [end.to(end_type) for end in reference_stochastic_rounding.ranges(vector, lengths)]
    packed = reference_stochastic_rounding.quantize(vector, *(end.float() for end in ends), lengths, bits, 0, 1)
    assert_alike("dequantize", packed, *ends, lengths, bits)
    assert_added_alike("add_dequantized", packed, *ends, lengths, bits)
    packed = reference_stochastic_rounding.quantize_levels(
        vector, ends[1].float().abs() + 5, lengths, 2**bits - 1, 0, 1
    )
    assert_alike("levels_dense", packed, ends[1].abs() + 5, lengths, 2**bits - 1)
    assert_added_alike("add_levels", packed, ends[1].abs() + 5, lengths, 2**bits - 1)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(DTYPES), st.integers(1, 8), firsts, keys)
def test_codes_and_their_values_are_alike(data, dtype, bits, offset, key):
    largest = 1.7e308 if dtype == torch.float64 else 2.0**127
    vector = data.draw(vectors(dtype, largest))
    lengths = data.draw(block_lengths(len(vector)))
    lows, highs = cpu_stochastic_rounding.ranges(vector, lengths)
    codes = assert_alike("quantize", vector, lows, highs, lengths, bits, offset, key)
    hyperparameters = assert_alike("dequantize", codes, lows, highs, lengths, bits)
    low, high = (reference_stochastic_rounding.per_element(ends, lengths) for ends in (lows, highs))
    assert bool(((low <= hyperparameters) & (hyperparameters <= high)).all())
    assert torch.equal(hyperparameters[vector == low], vector[vector == low])
    assert torch.equal(hyperparameters[vector == high], vector[vector == high])


@settings(deadline=None, max_examples=60)
@given(st.data(), st.sampled_from(DTYPES), st.integers(1, 255), firsts, keys)
def test_levels_and_their_parts_of_the_scale_are_alike(data, dtype, steps, offset, key):
    vector = data.draw(vectors(dtype))
    lengths = data.draw(block_lengths(len(vector)))
    scales = (cpu_stochastic_rounding.absolute_maxima(vector, lengths) * data.draw(st.floats(1, 4, width=32))).to(dtype)
    levels = assert_alike("quantize_levels", vector, scales, lengths, steps, offset, key)
    assert_alike("levels_dense", levels, scales, lengths, steps)


@over_inputs("dtype", DTYPES)
@over_inputs("bits", [1, 2, 3, 4, 8])
def test_the_mean_of_all_draws_is_the_value_to_the_last_bits(dtype, bits):
    """Every word that a hash can be is as likely: the share of those that round up is counted, not drawn."""
    vector = inputs(dtype)["normal"][:200]
    lows, highs = reference_stochastic_rounding.ranges(vector, (200,))
    maximum = (1 << bits) - 1
    found = reference_stochastic_rounding.grid_positions(vector, lows, highs, (200,), maximum)
    mean = lows + found.double() * 2.0**-reference_stochastic_rounding.FRACTION_BITS * (highs - lows).double() / maximum
    allowed = 2.0**-23 * float(highs - lows) * (1 if dtype == torch.float64 else 3)
    assert float((mean - vector).abs().max()) <= allowed


@over_inputs("offset", [0, 2**16 - 2048, 2**18 - 2000, 2**31 - 500, 2**32 - 5003])
def test_draws_are_the_same_however_a_vector_is_split(offset):
    vector = torch.randn(5003, generator=torch.Generator().manual_seed(1))
    ends = cpu_stochastic_rounding.ranges(vector, (5003,))
    full = cpu_stochastic_rounding.quantize(vector, *ends, (5003,), 8, offset, 99)
    for start, stop in ((0, 3), (1, 2000), (1024, 5003), (4999, 5003)):
        part = assert_alike("quantize", vector[start:stop], *ends, (stop - start,), 8, offset + start, 99)
        assert torch.equal(part, full[start:stop])


def test_what_is_not_a_number_is_rounded_alike():
    wrong = torch.tensor([1.0, float("nan"), float("inf"), -float("inf"), 0.0])
    for low, high in ((0.0, 1.0), (float("nan"), 1.0), (-float("inf"), float("inf"))):
        ends = torch.tensor([low]), torch.tensor([high])
        assert_alike("quantize", wrong, *ends, (5,), 3, 0, 1)
    for scale in (1.0, 0.0, float("nan")):
        assert_alike("quantize_levels", wrong, torch.tensor([scale]), (5,), 7, 0, 1)
    for at in range(1, 4):
        low, high = cpu_stochastic_rounding.ranges(wrong[: at + 1], (at + 1,))
        assert not bool(torch.isfinite(low) & torch.isfinite(high))
        assert not bool(torch.isfinite(cpu_stochastic_rounding.norms(wrong[: at + 1], (at + 1,))))


def test_a_level_above_the_last_and_a_negative_zero_are_found():
    for steps in (1, 2, 7, 100, 255):
        bits = reference_stochastic_rounding.level_bits(steps)
        for count in (1, 1025):
            for wrong in (1 << (bits - 1), *([steps + 1] if steps & (steps + 1) else [])):
                codes = torch.zeros(count, dtype=torch.int32)
                codes[-1] = wrong
                packed = pack_codes(codes, bits)
                for version in (reference_stochastic_rounding, cpu_stochastic_rounding):
                    assert not version.levels_allowed(packed, count, steps)


@over_inputs("dtype", DTYPES)
def test_of_nothing_there_is_nothing(dtype):
    none = torch.empty(0, dtype=dtype)
    for name in ("absolute_maxima", "norms"):
        assert assert_alike(name, none, ()).numel() == 0
    for version in (reference_stochastic_rounding, cpu_stochastic_rounding):
        assert [ends.numel() for ends in version.ranges(none, ())] == [0, 0]
    packed = assert_alike("quantize", none, none, none, (), 4, 0, 1)
    assert assert_alike("dequantize", packed, none, none, (), 4).numel() == 0
    packed = assert_alike("quantize_levels", none, none, (), 7, 0, 1)
    assert assert_alike("levels_dense", packed, none, (), 7).numel() == 0
