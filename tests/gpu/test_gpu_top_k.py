"""Exact top-K."""

import torch

from support.gpu_inputs import over_dtypes, over_kinds, vector_of
from support.inputs import over_inputs


@over_kinds
@over_dtypes
def test_the_largest_of_all_kinds_of_vectors_are_found(twins, kind, dtype):
    for d, k in ((1, 1), (1025, 10), (1025, 900)):
        twins("top_k").alike("top_k", vector_of(kind, d, dtype), k)


@over_inputs("k", [1, 700, 1024, 2049])
def test_of_equal_magnitudes_those_at_the_lowest_positions_are_taken(twins, k):
    draw = torch.randint(-1, 2, (2049,), generator=torch.Generator().manual_seed(1))
    twins("top_k").alike("top_k", draw.float(), k)


@over_dtypes
def test_nan_is_larger_than_infinity(twins, dtype):
    vector = torch.tensor([1.0, float("inf"), float("nan"), -float("inf"), 3.0], dtype=dtype)
    for k in (1, 2, 4):
        twins("top_k").alike("top_k", vector, k)


def test_a_strided_vector_will_do(twins):
    assert twins("top_k").gpu.top_k(torch.arange(20.0, device=twins("top_k").device)[::2], 2).tolist() == [8, 9]
