"""Squared distances: the compiled pass against float64 in torch, on vectors that tensors split in many ways."""

import math

import pytest
import torch

from laconic.kernels.api import gather_distance, squared_distance
from laconic.kernels.cpu import distances as cpu_distances
from laconic.kernels.cpu.flatten import PAST_CACHES_BYTES
from laconic.kernels.reference import distances as reference_distances
from support.inputs import over_inputs

D = 5000
both = pytest.mark.parametrize("kernels", [reference_distances, cpu_distances], ids=["plain", "cpu"])


def two_vectors(dtype):
    random = torch.Generator().manual_seed(0)
    return torch.randn(D, generator=random, dtype=dtype), torch.randn(D, generator=random, dtype=dtype)


@both
@over_inputs("dtype", [torch.float32, torch.float64])
def test_a_squared_distance_is_that_of_float64(kernels, dtype):
    one, other = two_vectors(dtype)
    expected = float((one - other).double().square().sum())
    for n in (1, 31, 1024, 1056, D):
        assert kernels.squared_distance([one[:n]], [other[:n]]) == pytest.approx(
            float((one - other)[:n].double().square().sum()), rel=1e-14
        )
    out = torch.empty_like(one)
    assert kernels.gather_distance(one.split(999), other, out) == pytest.approx(expected, rel=1e-14)
    assert torch.equal(out, one)


@both
def test_a_distance_beyond_the_limit_is_above_it_and_one_within_it_is_exact(kernels):
    one, other = two_vectors(torch.float32)
    exact = kernels.squared_distance([one], [other])
    for limit in (0.0, exact / 3, exact * (1 - 1e-12)):
        assert kernels.squared_distance([one], [other], limit=limit) > limit
    assert kernels.squared_distance([one], [other], limit=exact) == exact
    assert math.isnan(kernels.squared_distance([one], [other.index_fill(0, torch.tensor([7]), math.nan)], limit=1.0))


def test_how_tensors_split_the_vectors_changes_no_bit():
    one, other = two_vectors(torch.float32)
    expected = squared_distance([one], [other])
    for sizes, other_sizes in (([D], [1, D - 1]), ([0, 1000, 0, 24, D - 1024], [1023, D - 1023]), ([7, D - 7], [D, 0])):
        tensors, others = one.split(sizes), other.split(other_sizes)
        assert squared_distance(tensors, others) == expected
        assert gather_distance(tensors, other, torch.empty(D)) == expected


@over_inputs("start", [0, 3])  # where a line of the caches begins, and elsewhere
def test_a_long_vector_is_copied_with_the_distance_of_a_short_one(start):
    random = torch.Generator().manual_seed(1)
    d = PAST_CACHES_BYTES // 4 + 77
    one, other, memory = (torch.randn(d + start + 1, generator=random) for _ in range(3))
    one, other, out, after = one[start:-1], other[start:-1], memory[start:-1], memory[-1].clone()
    assert gather_distance(one.split([7, 64, 10_000, d - 10_071]), other, out) == squared_distance([one], [other])
    assert torch.equal(out, one)
    assert memory[-1] == after


@both
def test_large_differences_overflow_to_infinity_and_nan_stays_nan(kernels):
    far = torch.full((D,), 1e30)
    assert kernels.squared_distance([far], [-far]) == pytest.approx(
        4e60 * D, rel=1e-6
    )  # in float32, a square overflows
    huge = torch.full((D,), 3e38)
    assert kernels.squared_distance([huge], [-huge]) == math.inf
    assert math.isnan(kernels.squared_distance([huge * 0 + math.nan], [huge]))


def test_tensors_of_other_types_are_compared_as_the_vectors_that_they_make():
    one, other = two_vectors(torch.float32)
    short = one.bfloat16()
    expected = squared_distance([short.float()], [other])
    assert squared_distance([short], [other]) == pytest.approx(expected, rel=1e-14)
    assert squared_distance([short[:10], one[10:]], [other]) == pytest.approx(
        squared_distance([torch.cat([short[:10].float(), one[10:]])], [other]), rel=1e-14
    )
    turned = one.view(100, 50).t()
    assert squared_distance([turned], [other]) == pytest.approx(
        squared_distance([turned.reshape(-1)], [other]), rel=1e-14
    )


def test_vectors_of_unlike_lengths_are_refused():
    with pytest.raises(ValueError, match=r"^squared_distance: 1 tensors have 4 elements in all; they must have 5"):
        squared_distance([torch.ones(2), torch.ones(3)], [torch.ones(4)])
    with pytest.raises(ValueError, match=r"^squared_distance: number of tensors=0"):
        squared_distance([], [])
