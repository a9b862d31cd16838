"""Sums of vectors: the compiled kernel against the reference, bit for bit, and both against adding one by one."""

import pytest
import torch

from laconic.kernels.api import add_up, add_up_rings, mixed_difference, weighted_sum
from laconic.kernels.cpu import sums as cpu_sums
from laconic.kernels.reference import sums as reference_sums
from support.inputs import over_inputs


def vectors_of(n: int, d: int, dtype: torch.dtype) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(n)
    made = [torch.randn(d, generator=random, dtype=dtype) for _ in range(n)]
    for vector in made:
        vector[: d // 3] = -0.0
    made[0][-1] = torch.inf
    return made


@pytest.mark.parametrize("kernels", [reference_sums, cpu_sums], ids=["plain", "cpu"])
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs(("n", "d"), [(1, 7), (2, 4097), (3, 10_000), (9, 1)])
@over_inputs("from_zero", [True, False])
def test_a_sum_adds_in_order_and_is_divided(kernels, n, d, dtype, from_zero):
    vectors = vectors_of(n, d, dtype)
    expected = torch.zeros(d, dtype=dtype) if from_zero else vectors[0].clone()
    for vector in vectors[not from_zero :]:
        expected = expected + vector
    for divisor in (1, 3):
        out = torch.full((d,), torch.nan, dtype=dtype)
        assert kernels.add_up(vectors, out, divisor=divisor, from_zero=from_zero) == torch.inf
        assert torch.equal(out, expected / divisor)
        assert torch.equal(out.signbit(), expected.signbit())


@over_inputs("kernels", [reference_sums, cpu_sums])
def test_a_sum_returns_its_largest_magnitude(kernels):
    for at, value in ((0, -7.5), (9000, 8.0), (9999, torch.nan)):
        vectors = [torch.ones(10_000), torch.ones(10_000)]
        vectors[1][at] = value
        out = torch.empty(10_000)
        largest = kernels.add_up(vectors, out, divisor=2)
        assert largest == float(out.abs().max()) or (value != value and largest != largest)


@pytest.mark.parametrize("kernels", [reference_sums, cpu_sums], ids=["plain", "cpu"])
@over_inputs("dtype", [torch.float32, torch.float64])
@over_inputs(("n", "ends"), [(1, [7]), (2, [5000, 9001]), (5, [1, 1, 4099, 4100, 4100])])
def test_rings_add_each_slice_from_the_rank_before_its_own_down(kernels, n, ends, dtype):
    vectors = vectors_of(n, ends[-1], dtype)
    bounds = list(zip([0, *ends], ends, strict=False))
    out = torch.full((ends[-1],), torch.nan, dtype=dtype)
    kernels.add_up_rings(vectors, bounds, out)
    for k, (start, stop) in enumerate(bounds):
        expected = vectors[k - 1][start:stop]
        for step in range(2, n + 1):
            expected = expected + vectors[(k - step) % n][start:stop]
        assert torch.equal(out[start:stop], expected)
        assert torch.equal(out[start:stop].signbit(), expected.signbit())


@over_inputs("bounds", [[(0, 3)], [(0, 2), (1, 3)], [(0, 1), (1, 2)], [(0, 4), (4, 3)]])
def test_slices_that_do_not_cover_the_sum_are_refused_by_name(bounds):
    with pytest.raises(ValueError, match=r"^add_up_rings: "):
        add_up_rings([torch.ones(3), torch.ones(3)], bounds, torch.empty(3))


def test_the_sum_may_overwrite_its_initial_vector():
    vectors = vectors_of(3, 100, torch.float32)
    expected = vectors[0] + vectors[1] + vectors[2]
    add_up(vectors, vectors[0], from_zero=False)
    assert torch.equal(vectors[0], expected)


@over_inputs("vectors", [[], [torch.ones(3), torch.ones(4)], [torch.ones(3).double()]])
def test_no_vector_and_vectors_of_another_length_or_type_are_refused_by_name(vectors):
    with pytest.raises((TypeError, ValueError), match=r"^add_up: "):
        add_up(vectors, torch.empty(3))


D = (1 << 17) + 13  # more than two chunks


def test_a_weighted_sum_has_the_bits_of_sums_over_full_vectors():
    vectors, weights = vectors_of(3, D, torch.float32), (0.25, 0.3, 0.45)
    expected = torch.zeros(D)
    for vector, weight in zip(vectors, weights, strict=True):
        expected.add_(vector, alpha=weight)
    assert torch.equal(weighted_sum(vectors, weights, torch.empty(D)), expected)


@over_inputs("n", [1, 2, 3, 5])
@over_inputs("dtype", [torch.float32, torch.float64])
def test_both_add_up_weighted_vectors_alike(n, dtype):
    vectors, weights = vectors_of(n, 10_007, dtype), [0.1 + 0.3 * number for number in range(n)]
    made, expected = torch.full((2, 10_007), torch.nan, dtype=dtype)
    assert cpu_sums.weighted_sum(vectors, weights, made) is made
    reference_sums.weighted_sum(vectors, weights, expected)
    assert torch.equal(made, expected)
    assert torch.equal(made.signbit(), expected.signbit())


def test_the_difference_to_a_mixed_model_has_the_bits_of_two_weighted_sums():
    for dtype in (torch.float32, torch.float64):
        updated, published, *copies = (torch.randn(D, dtype=dtype) for _ in range(5))
        for n in (1, 2, 3):
            weights = [0.2, 0.3, 0.5][:n]
            mixed = weighted_sum(copies[:n], weights, torch.empty(D, dtype=dtype))
            expected = updated - published + mixed - published
            for difference in (mixed_difference, reference_sums.mixed_difference):
                made = difference(updated, published, copies[:n], weights, torch.empty(D, dtype=dtype))
                assert torch.equal(made, expected), (dtype, n)
