"""Orthonormal bases and products of thin matrices, with the same bits on every processor.

Ranks that compute them from equal matrices must get equal results, or their models drift apart. The matrix product and
the QR decomposition of a library add in an order of their own. Only elementwise operations are used here, each rounded
as IEEE 754 says, and sums that are rounded once.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_DEPENDENT = 1e-12  # what is left of a column that earlier ones span, relative to its norm


def orthonormal(matrix: Tensor) -> Tensor:
    """Return an orthonormal basis of the columns of a matrix, by the method of Gram and Schmidt in float64.

    The first k columns of the basis span the first k columns of the matrix. A column that depends on those before it
    is replaced by a direction that does not, so that no column of the basis is zero.

    Args:
        matrix: (n, r) float32 or float64, r <= n.

    Returns:
        (n, r) of the same type on the same device.
    """
    columns = matrix.detach().cpu().double().numpy().T.copy()
    for i, column in enumerate(columns):
        before = columns[:i]
        size = math.sqrt(_dot(column, column))
        for other in (*before, *before):  # twice, against rounding
            column -= _dot(other, column) * other
        left = math.sqrt(_dot(column, column))
        if left <= _DEPENDENT * size:
            index = int(np.square(before).sum(0).argmin())  # a unit vector: the one that they cover the least
            column[:] = 0
            column[index] = 1
            for other in before:
                column -= other[index] * other
            left = math.sqrt(_dot(column, column))
        column /= left
    return torch.from_numpy(columns.T).to(matrix)


def _dot(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Return the sum of the products (n,), rounded once."""
    return math.fsum((one * other).tolist())


def outer_sum(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write the product of two thin matrices to `out`: the sum of their columns' outer products, in order.

    Args:
        left: (n, r).
        right: (m, r) of the same type.
        out: (n, m) of the same type.

    Returns:
        `out`.
    """
    torch.mul(left[:, :1], right[:, 0], out=out)
    for k in range(1, left.shape[1]):
        out.add_(left[:, k : k + 1] * right[:, k])
    return out
