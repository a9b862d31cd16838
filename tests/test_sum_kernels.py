"""Dividing a sum, and seeing whether it is spoiled, in one pass."""

import pytest
import torch

from laconic.kernels import compiled, divide, plain_sums


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
