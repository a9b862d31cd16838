"""Blocks of few elements, for which kernels have loops of their own: the bits of the reference, whatever the values."""

import functools

import pytest
import torch

from laconic.kernels.block_lengths import BlockLengths
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import residuals as reference_residuals
from laconic.kernels.reference import stochastic_rounding as reference_stochastic_rounding
from support.inputs import over_inputs

if not compiled.numba_available():
    pytest.skip("no numba here: only the plain kernels exist", allow_module_level=True)

from laconic.kernels.cpu import residuals as cpu_residuals
from laconic.kernels.cpu import stochastic_rounding as cpu_stochastic_rounding

DTYPES = [torch.float32, torch.float64]
D = 2055  # two tiles, and some elements that fill no group
OFFSET = 2**32 - 2**16 - 1024  # the second tile begins a segment
LENGTHS = {f"blocks of {size}": BlockLengths.uniform(size, D) for size in (1, 2, 3, 4, 5, 8, 12)} | {
    "uneven blocks": BlockLengths.of([1, 2, 3, 1, 7] * 146 + [2, 9])
}


@functools.cache
def values(kind, dtype):
    """Elements of one kind, among zeros of both signs."""
    generator = torch.Generator().manual_seed(3)
    sampled, finite = torch.randn(D, generator=generator, dtype=torch.float64), torch.finfo(dtype)
    made = {
        "normal": sampled,
        "equal": torch.full_like(sampled, -0.7),
        "denormal": sampled * finite.smallest_normal / 8,
        "extreme": sampled.clamp(-1, 1) * finite.max,
        "no numbers": torch.where(sampled > 1.5, torch.nan, torch.where(sampled < -1.5, -torch.inf, sampled)),
    }[kind].to(dtype)
    made[::17], made[5::29] = 0.0, -0.0
    return made


KINDS = ("normal", "equal", "denormal", "extreme", "no numbers")


def assert_same(made, reference):
    assert made.dtype == reference.dtype
    assert torch.equal(made.isnan(), reference.isnan())
    assert torch.equal(made.nan_to_num(), reference.nan_to_num())
    assert torch.equal(made.signbit() & ~made.isnan(), reference.signbit() & ~reference.isnan())


def both(name, *arguments):
    reference, made = (
        getattr(version, name)(*arguments) for version in (reference_stochastic_rounding, cpu_stochastic_rounding)
    )
    assert_same(made, reference)
    return made


def added(version, name, packed, *arguments):
    total = torch.linspace(-3, 3, D, dtype=arguments[0].dtype)
    getattr(version, name)(packed, *arguments, total, subtract=True)
    return total


@pytest.mark.slow
@over_inputs("lengths", LENGTHS)
@over_inputs("dtype", DTYPES)
def test_codes_and_levels_of_short_blocks_have_the_reference_bits(dtype, lengths):
    blocks = LENGTHS[lengths]
    for kind in KINDS:
        vector = values(kind, dtype)
        ends = cpu_stochastic_rounding.ranges(vector, blocks)
        for made, reference in zip(ends, reference_stochastic_rounding.ranges(vector, blocks), strict=True):
            assert_same(made, reference)
        scales = both("absolute_maxima", vector, blocks)
        for bits in (1, 4, 5):
            packed = both("quantize", vector, *ends, blocks, bits, OFFSET, 99)
            both("dequantize", packed, *ends, blocks, bits)
            both("dequantize", packed ^ 0x53, *ends, blocks, bits)
            assert_same(
                *(
                    added(version, "add_dequantized", packed, *ends, blocks, bits)
                    for version in (cpu_stochastic_rounding, reference_stochastic_rounding)
                )
            )
        for steps in (1, 7, 100):
            for factor in (1.0, 1.5):  # of 1, an element is its block's scale, at least once
                packed = both("quantize_levels", vector, scales * factor, blocks, steps, OFFSET + 7, 99)
                both("levels_dense", packed, scales * factor, blocks, steps)
            assert_same(
                *(
                    added(version, "add_levels", packed, scales, blocks, steps)
                    for version in (cpu_stochastic_rounding, reference_stochastic_rounding)
                )
            )


@over_inputs("lengths", LENGTHS)
@over_inputs("dtype", DTYPES)
def test_norms_and_scaled_signs_of_short_blocks_are_the_reference_ones(dtype, lengths):
    blocks = LENGTHS[lengths]
    tolerance = 2.0**-22 if dtype == torch.float32 else 2.0**-40
    for kind in KINDS:
        vector = values(kind, dtype)
        norms, means = cpu_stochastic_rounding.norms(vector, blocks), cpu_residuals.mean_signs(vector, blocks)
        atol = torch.finfo(dtype).smallest_normal * 2 * tolerance
        expected = reference_stochastic_rounding.norms(vector, blocks)
        if kind != "no numbers":  # an infinite norm is NaN in the reference
            torch.testing.assert_close(norms, expected, rtol=tolerance, atol=atol)
        packed, scales = reference_residuals.mean_signs(vector, blocks)
        assert torch.equal(means[0], packed)
        torch.testing.assert_close(means[1], scales, rtol=tolerance, atol=atol, equal_nan=True)
        for name in ("put_scaled_signs", "add_scaled_signs"):
            outs = [torch.linspace(-3, 3, D, dtype=dtype) for _ in range(2)]
            for version, out in zip((reference_residuals, cpu_residuals), outs, strict=True):
                getattr(version, name)(packed, scales, blocks, out)
            assert_same(*outs)
