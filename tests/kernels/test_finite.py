"""Dividing by the number of those who add, and seeing whether a vector has inf or NaN."""

import torch

from laconic.kernels import api as kernels
from laconic.kernels.api import all_finite, divide
from laconic.kernels.cpu import compile as compiled
from laconic.kernels.reference import finite as reference_finite
from support.inputs import over_inputs


@over_inputs("dtype", [torch.float32, torch.float64, torch.bfloat16])
@over_inputs("count", [0, 1, 7, 1023, 1024, 1025, 5000])
def test_both_divide_alike(count, dtype):
    assert compiled.numba_available()
    total = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    total[::3] *= torch.finfo(dtype).max / 16
    total[1::3] *= torch.finfo(dtype).smallest_normal
    other = total.clone()
    assert divide(total, 7)
    assert reference_finite.divide(other, 7)
    assert total.view(torch.uint8).tolist() == other.view(torch.uint8).tolist()


@over_inputs("wrong", [torch.inf, -torch.inf, torch.nan])
@over_inputs("at", [0, 1023, 1024, 2999])
def test_one_wrong_value_is_seen(at, wrong):
    total = torch.ones(3000)
    total[at] = wrong
    assert not reference_finite.divide(total.clone(), 2)
    assert not divide(total, 2)


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("n", [2, 7, 11, 1000])
def test_shares_that_are_fine_never_add_up_to_infinity(n, dtype):
    largest = torch.finfo(dtype).max
    for magnitude, fine in ((largest * (1 - 2.0**-9), True), (largest, False), (-largest, False)):
        for kernel in (divide, reference_finite.divide):
            share = torch.full((70,), magnitude, dtype=dtype)
            assert kernel(share, n) is fine
        total = torch.zeros_like(share)
        for _ in range(n):
            total += share
        assert not fine or bool(torch.isfinite(total).all())


@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs("wrong", [torch.inf, -torch.inf, torch.nan])
@over_inputs("at", [0, 1023, 1024, 4096, 8191, 8192, 9000])
def test_one_wrong_value_beside_extremes_is_seen(at, wrong, dtype):
    vector = torch.full((9001,), torch.finfo(dtype).max, dtype=dtype)
    vector[::2] = torch.finfo(dtype).tiny / 4
    assert all_finite(vector)
    assert reference_finite.all_finite(vector)
    vector[at] = wrong
    assert not all_finite(vector)
    assert not reference_finite.all_finite(vector)
    assert not kernels.are_sizes(vector)
    assert kernels.are_sizes(vector.index_fill(0, torch.tensor([at]), -0.0))
    assert not kernels.are_sizes(vector.index_fill(0, torch.tensor([at]), -torch.finfo(dtype).tiny / 4))


@over_inputs("dtype", [torch.float32, torch.float64, torch.bfloat16])
@over_inputs("at", [0, 3, 40])
def test_one_wrong_number_of_a_block_is_seen(at, dtype):
    lows, highs = torch.linspace(-1, 1, 41).to(dtype), torch.linspace(-1, 2, 41).to(dtype)
    for by in (kernels, reference_finite):
        assert by.are_ranges(lows, highs)
        assert by.are_sizes(highs.abs())
        for wrong in (torch.nan, torch.inf, -torch.inf):
            for ends in ((lows.clone(), highs), (lows, highs.clone())):
                ends[0 if ends[1] is highs else 1][at] = wrong
                assert not by.are_ranges(*ends)
            assert not by.are_sizes(torch.full_like(lows, 1).index_fill_(0, torch.tensor([at]), wrong))
        assert not by.are_sizes(torch.full_like(lows, 1).index_fill_(0, torch.tensor([at]), -1e-3))
        assert not by.are_ranges(lows.index_fill(0, torch.tensor([at]), 3), highs)
        assert by.are_sizes(torch.tensor([-0.0], dtype=dtype))
        assert by.are_ranges(lows[:0], highs[:0])


def test_other_vectors_are_looked_through_by_torch():
    assert all_finite(torch.empty(0))
    assert all_finite(torch.ones(9, dtype=torch.bfloat16))
    assert not all_finite(torch.tensor([1.0, torch.inf, 2.0, 3.0])[::1].to(torch.bfloat16))
    assert all_finite(torch.tensor([1.0, torch.inf, 2.0, torch.nan])[::2])
