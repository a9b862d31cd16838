"""Dividing a sum or taking a difference, and seeing whether it is spoiled, in one pass."""

import pytest
import torch

from laconic.kernels import compiled, divide, plain_sums, subtract


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 7, 1023, 1024, 1025, 5000])
def test_both_divide_alike(count, dtype):
    assert compiled.available()
    total = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    total[::3] *= torch.finfo(dtype).max / 16
    total[1::3] *= torch.finfo(dtype).smallest_normal
    other = total.clone()
    assert divide(total, 7)
    assert plain_sums.divide(other, 7)
    assert total.view(torch.uint8).tolist() == other.view(torch.uint8).tolist()


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("at", [0, 1023, 1024, 2999])
def test_one_wrong_entry_is_seen(at, wrong):
    total = torch.ones(3000)
    total[at] = wrong
    assert not plain_sums.divide(total.clone(), 2)
    assert not divide(total, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [0, 1, 7, 1023, 1024, 1025, 5000])
def test_both_subtract_alike(count, dtype):
    one, other = torch.randn(2, count, generator=torch.Generator().manual_seed(count)).to(dtype)
    one[::3] *= torch.finfo(dtype).max / 16
    other[1::3] *= torch.finfo(dtype).smallest_normal
    one[2::3] = other[2::3] = -0.0
    made, expected = torch.empty(2, count, dtype=dtype)
    assert subtract(one, other, made)
    assert plain_sums.subtract(one, other, expected)
    assert made.view(torch.uint8).tolist() == expected.view(torch.uint8).tolist()


@pytest.mark.parametrize("at", [0, 1023, 1024, 2999])
def test_a_difference_that_overflows_is_seen(at):
    one, other = torch.ones(3000), torch.ones(3000)
    one[at], other[at] = torch.finfo(torch.float32).max, -torch.finfo(torch.float32).max
    assert not plain_sums.subtract(one, other, torch.empty(3000))
    assert not subtract(one, other, torch.empty(3000))
