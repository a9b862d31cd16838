"""The fractional quantizer: the paper's rule, its invariants, and the compiled version against the plain one."""

import math

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.compressors import Fractional, fractional, scaled_signs
from laconic.kernels import api as kernels
from laconic.kernels.cpu import fractional as cpu_fractional
from laconic.kernels.cpu.llvm import level_sums as llvm_level_sums
from laconic.kernels.reference import fractional as reference_fractional
from support.inputs import over_inputs

VERSIONS = [reference_fractional, cpu_fractional, kernels]
TOTAL_TYPES = (torch.float32, torch.float64, torch.bfloat16)
GOLDEN = torch.tensor([-8, 4, 2, -1, 0.5, 6, 3, -0.6])


def vector_of(kind: str, d: int, dtype: torch.dtype) -> torch.Tensor:
    sampled = torch.randn(d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    made = {
        "normal": sampled,
        "wide": torch.exp2(25 * sampled).clamp(max=1e38) * sampled.sign(),
        "half zero": sampled.clamp(min=0),
        "constant": torch.full_like(sampled, -0.3),
        "zero": torch.zeros_like(sampled),
        "in order": torch.exp2(25 * sampled).clamp(max=1e38).sort().values
        * sampled.sign(),  # few levels among neighbors
        "extreme": sampled.clamp(-1, 1) * torch.finfo(dtype).max * (1 if dtype == torch.float32 else 2.0**-20),
        "denormal": sampled * (1e-42 if dtype == torch.float32 else 1e-320),
    }
    return made[kind].to(dtype)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda module: module.__name__)
def test_the_worked_example_comes_out(version):
    packed, means = version.fractional_codes(GOLDEN, 3)
    assert version.unpack_codes(packed, 8, 3).tolist() == [4, 1, 2, 7, 3, 0, 1, 7]
    assert means.tolist() == pytest.approx([7, 3.5, 2, 0.7], rel=2e-7)
    packet = fractional(GOLDEN, bits=3)
    assert packet.dense().tolist() == pytest.approx([-7, 3.5, 2, -0.7, 0.7, 7, 3.5, -0.7], rel=2e-7)
    assert float(packet.dense().abs().sum()) == pytest.approx(25.1, rel=2e-7)


@over_inputs("kind", ["normal", "wide", "half zero", "constant", "zero", "in order", "extreme", "denormal"])
@over_inputs("dtype", [torch.float32, torch.float64])
@pytest.mark.slow
def test_both_versions_give_the_same_codes_and_nearly_the_same_means(kind, dtype):
    tolerance = reference_fractional.MEAN_TOLERANCE[dtype]
    for d in (1, 7, 8, 3001):
        vector = vector_of(kind, d, dtype)
        for bits in (1, 2, 3, 4, 5, 8, 9, 16):
            (packed, means), (expected, expected_means) = (
                version.fractional_codes(vector, bits) for version in (cpu_fractional, reference_fractional)
            )
            assert torch.equal(packed, expected)
            smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
            torch.testing.assert_close(means, expected_means, rtol=tolerance, atol=smallest)
            for place, of_means in enumerate((means, means.double(), means.bfloat16())):
                dense, expected_dense = (
                    version.fractional_dense(packed, of_means, d, bits)
                    for version in (cpu_fractional, reference_fractional)
                )
                assert dense.dtype == of_means.dtype
                assert torch.equal(dense, expected_dense)
                assert torch.equal(dense.signbit(), expected_dense.signbit())
                # With the next number of bits, each type of means meets another type of totals.
                total, expected_total = torch.ones(2, d, dtype=TOTAL_TYPES[(place + bits) % 3])
                cpu_fractional.add_fractional(packed, of_means, d, bits, total)
                reference_fractional.add_fractional(packed, of_means, d, bits, expected_total)
                assert torch.equal(total, expected_total)


@pytest.mark.parametrize("kind", [llvm_level_sums.MasksInVectors, llvm_level_sums.MasksInRegisters])
@over_inputs("dtype", [torch.float32, torch.float64])
@pytest.mark.slow
def test_groups_have_their_codes_counts_and_sums_on_processors_of_both_kinds(kind, dtype):
    spans = llvm_level_sums.spans_by(lambda context: kind)

    @numba.njit  # type: ignore[untyped-decorator]
    def run(values, bounds, lows, highs, minus, width, sums, counts, codes):
        spans(
            values[0], values.ctypes.data, lows.size, bounds.ctypes.data, lows.ctypes.data, highs.ctypes.data, minus,
            width, sums.ctypes.data, counts.ctypes.data, codes.ctypes.data,
        )  # fmt: skip

    n_groups, rows, tolerance = 24, llvm_level_sums.ROWS, reference_fractional.MEAN_TOLERANCE[dtype]
    for name in ("normal", "wide", "half zero", "in order", "zero"):  # a group has from one to eight levels
        vector = vector_of(name, n_groups * llvm_level_sums.SPAN, dtype)
        values, magnitudes = vector.numpy(), vector.abs().numpy()
        groups = magnitudes.reshape(n_groups, -1)
        smallest = float(magnitudes[magnitudes > 0].min(initial=np.inf))
        for bits in (1, 2, 4):
            bounds = np.full(rows, -1, values.dtype)
            found = reference_fractional.bounds_array(
                float(magnitudes.max()), smallest, bits, double=dtype == torch.float64
            )
            bounds[: found.size] = found
            levels = (magnitudes[:, None] <= bounds).sum(1)
            expected = torch.from_numpy(levels | (values < 0) << (bits - 1)).int()
            for width in (bits, 8):
                sums, counts = np.zeros((rows, llvm_level_sums.LANES)), np.zeros(rows, np.int64)
                codes = torch.empty(width * values.size // 8, dtype=torch.uint8)
                run(values, bounds, groups.min(1), groups.max(1), np.uint32(1 << (bits - 1)), width, sums, counts,
                    codes.numpy())  # fmt: skip
                assert torch.equal(codes, reference_fractional.pack_codes(expected, width))
                assert counts.tolist() == np.bincount(levels, minlength=rows).tolist()
                assert sums.sum(1) == pytest.approx(np.bincount(levels, magnitudes, rows), rel=tolerance, abs=0)


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(st.lists(st.floats(-(2.0**127), 2.0**127, width=32), min_size=1, max_size=60), st.integers(1, 16))
def test_levels_fall_with_magnitude_and_keep_its_sum(numbers, bits):
    vector = torch.tensor(numbers, dtype=torch.float64)
    packet = fractional(vector, bits=bits)
    assert packet.finite
    levels, magnitudes = packet.levels.long(), vector.abs()
    order = magnitudes.argsort(descending=True)
    assert bool((levels[order].diff() >= 0).all())
    assert int(levels.max()) < 1 << (bits - 1)
    for level in levels.unique().tolist():
        there = levels == level
        packet_sum, given_ = float(packet.dense().abs()[there].sum()), float(magnitudes[there].sum())
        assert packet_sum == pytest.approx(given_, rel=1e-12)
    sent = torch.zeros(len(packet.means), dtype=torch.bool)
    sent[levels.unique()] = True
    assert not packet.means[~sent].any()
    if magnitudes.any():
        assert levels[magnitudes == magnitudes.max()].tolist() == [0] * int((magnitudes == magnitudes.max()).sum())


@over_inputs("bits", [2, 4, 8])
def test_a_magnitude_is_in_the_level_of_the_papers_formula(bits):
    vector = vector_of("normal", 2000, torch.float64)
    magnitudes = vector.abs()
    n_levels = 1 << (bits - 1)
    ratio = (magnitudes.max() / magnitudes.min()) ** (1 / n_levels)
    on_paper = torch.log(magnitudes.max() / magnitudes) / torch.log(ratio)
    near_an_end = (on_paper - on_paper.round()).abs() < 1e-9  # where rounding of the logarithm decides
    assert int(near_an_end.sum()) <= n_levels
    expected = on_paper.floor().clamp(0, n_levels - 1)
    assert torch.equal(fractional(vector, bits=bits).levels.double()[~near_an_end], expected[~near_an_end])


def test_one_bit_is_the_scaled_sign_of_the_full_vector():
    vector = vector_of("normal", 500, torch.float32)
    tolerance = reference_fractional.MEAN_TOLERANCE[torch.float32]
    expected = scaled_signs(vector, lengths=(500,)).dense()
    torch.testing.assert_close(fractional(vector, bits=1).dense(), expected, rtol=tolerance, atol=0)


def test_zeros_are_in_the_last_level_and_equal_magnitudes_in_the_initial_one():
    packet = fractional(torch.tensor([0.0, -0.0, 2.0, -2.0]), bits=3)
    assert packet.levels.tolist() == [3, 3, 0, 0]
    assert packet.means.tolist() == [2.0, 0.0, 0.0, 0.0]
    assert packet.dense().tolist() == [0.0, 0.0, 2.0, -2.0]
    assert not packet.negative[1]
    assert fractional(torch.zeros(3), bits=2).means.tolist() == [0.0, 0.0]


def test_a_ratio_that_no_float_holds_still_has_its_levels():
    vector = torch.tensor([1.7e308, 1.0, -5e-324], dtype=torch.float64)
    packet = fractional(vector, bits=4)
    assert packet.levels.tolist() == [0, 3, 7]
    assert packet.dense().tolist() == vector.tolist()
    packet = fractional(torch.tensor([3.4e38, 1e-45]), bits=16)
    assert packet.levels.tolist() == [0, 32767]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda module: module.__name__)
@over_inputs("wrong", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_shows_in_the_means(version, wrong):
    for bits in (1, 4, 6):
        means = version.fractional_codes(torch.tensor([1.0, wrong, 2.0, 0.0]), bits)[1]
        assert not torch.isfinite(means).all()


@over_inputs("bits", range(1, 17))
def test_codes_are_packed_without_gaps_from_the_lowest_bit_up(bits):
    for k in (1, 5, 8, 67, 1024, 2049):
        codes = torch.randint(0, 1 << bits, (k,), generator=torch.Generator().manual_seed(k), dtype=torch.int32)
        full = sum(code << (bits * i) for i, code in enumerate(codes.tolist()))
        expected = list(full.to_bytes((bits * k + 7) // 8, "little"))
        for version in VERSIONS:
            packed = version.pack_codes(codes, bits)
            assert packed.tolist() == expected
            assert torch.equal(version.unpack_codes(packed, k, bits), codes)


def test_the_contraction_is_the_share_of_the_level_means():
    assert Fractional(bits=3).delta(GOLDEN) == pytest.approx(
        (2 * 7**2 + 2 * 3.5**2 + 2**2 + 3 * 0.7**2) / float(GOLDEN.square().sum()), rel=1e-6
    )
    assert Fractional(bits=4).delta(torch.zeros(4)) == 1.0
