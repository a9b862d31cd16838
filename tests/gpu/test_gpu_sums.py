"""What is done to a sum of vectors."""

import torch

from support.gpu_inputs import over_dtypes, over_kinds, vector_of
from support.inputs import over_inputs


@over_kinds
@over_dtypes
def test_sums_of_all_kinds_of_vectors_are_divided_alike(twins, kind, dtype):
    for d in (0, 1, 1025):
        twins("finite").alike("divide", vector_of(kind, d, dtype), 7)


@over_inputs("non_finite", [float("inf"), -float("inf"), float("nan")])
def test_a_sum_with_what_is_no_number_is_reported(twins, non_finite):
    vector = torch.ones(1030)
    vector[1027] = non_finite
    assert not twins("finite").alike("divide", vector, 3)
