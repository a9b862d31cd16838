"""What is done to a sum of vectors."""

import pytest
import torch


def test_sums_of_all_kinds_of_vectors_are_divided_alike(twins, vector_of, kind, dtype):
    for d in (0, 1, 1025):
        twins("sums").alike("divide", vector_of(kind, d, dtype), 7)


@pytest.mark.parametrize("spoilt", [float("inf"), -float("inf"), float("nan")])
def test_a_sum_with_what_is_no_number_is_told(twins, spoilt):
    vector = torch.ones(1030)
    vector[1027] = spoilt
    assert not twins("sums").alike("divide", vector, 3)
