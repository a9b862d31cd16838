"""Orthonormal bases, and sums of outer products."""

import pytest
import torch

from laconic.kernels.api import orthonormal, outer_sum
from support.inputs import over_inputs
from support.simulated_run import normal

TYPES = ((torch.float32, 1e-6), (torch.float64, 1e-14))
SHAPES = ((1, 1), (2, 1), (7, 2), (40, 5), (6, 6), (513, 3))


def is_orthonormal(basis, to):
    product = basis.double().T @ basis.double()
    return torch.allclose(product, torch.eye(basis.shape[1], dtype=torch.float64), rtol=0, atol=to)


@over_inputs(("dtype", "to"), TYPES)
@over_inputs("shape", SHAPES)
def test_the_columns_of_a_basis_are_orthonormal_and_span_those_of_the_matrix_in_order(dtype, to, shape):
    matrix = normal(*shape, key=1).to(dtype)
    basis = orthonormal(matrix)
    assert (basis.shape, basis.dtype) == (matrix.shape, dtype)
    assert is_orthonormal(basis, to)
    for k in range(1, shape[1] + 1):
        part = basis[:, :k].double()
        left = matrix[:, :k].double()
        assert float((left - part @ (part.T @ left)).norm()) <= 10 * to * float(left.norm())


DEPENDENT = {
    "zero": torch.zeros(9, 3),
    "a zero column": torch.stack([torch.arange(9.0), torch.zeros(9), torch.ones(9)], 1),
    "equal columns": torch.ones(9, 3),
    "unit vectors, twice": torch.eye(9)[:, [0, 1, 0, 1]],
    "tiny": torch.eye(9)[:, [4, 4]] * 1e-45,
    "huge": torch.full((9, 2), 3e38),
}


@pytest.mark.parametrize("name", DEPENDENT)
@over_inputs(("dtype", "to"), TYPES)
def test_columns_that_depend_on_others_are_replaced_so_that_the_basis_is_complete(name, dtype, to):
    assert is_orthonormal(orthonormal(DEPENDENT[name].to(dtype)), to)


def test_the_matrix_stays_as_it_is():
    matrix = normal(5, 2, key=3)
    before = matrix.clone()
    assert not torch.equal(orthonormal(matrix), matrix)
    assert torch.equal(matrix, before)


@over_inputs("power", (-60, 0, 60))
def test_a_basis_has_the_same_bits_whatever_the_scale_of_the_matrix(power):
    """Scaling by a power of two is exact, so an exact method gives the same bits."""
    matrix = normal(33, 3, key=5).float()
    assert torch.equal(orthonormal(matrix * 2.0**power), orthonormal(matrix))


@over_inputs(("dtype", "to"), TYPES)
@over_inputs("r", (1, 2, 5))
def test_the_sum_of_outer_products_is_the_matrix_product(dtype, to, r):
    left, right = normal(11, r, key=1).to(dtype), normal(8, r, key=2).to(dtype)
    out = torch.full((11, 8), torch.nan, dtype=dtype)
    assert outer_sum(left, right, out=out) is out
    assert torch.allclose(out, left @ right.T, rtol=0, atol=10 * to)


def test_the_sum_of_outer_products_rounds_each_product_and_each_sum_once():
    left, right = normal(6, 3, key=1).float(), normal(4, 3, key=2).float()
    out = outer_sum(left, right, out=torch.empty(6, 4))
    for i in range(6):
        for j in range(4):
            products = [(left[i, k].double() * right[j, k].double()).float() for k in range(3)]
            expected = ((products[0].double() + products[1].double()).float().double() + products[2].double()).float()
            assert out[i, j] == expected
