"""Steps of plain SGD of the tensors of a model, compiled: one thread, one pass, torch's bits.

Reference: `reference/descents.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.block_norms import FLOATS
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.flatten import pointer_to, spans_of
from laconic.kernels.cpu.steps import rounds_as_torch
from laconic.kernels.cpu.sums import fused
from laconic.kernels.reference import descents as reference_descents

Array = NDArray[Any]


def descend(tensors: Sequence[Tensor], gradients: Sequence[Tensor], *, factor: float) -> None:
    """See `reference.descents.descend`."""
    spans, more = (spans_of(each, each[0]) if each else None for each in (tensors, gradients))
    is_plain = spans is not None and more is not None and np.array_equal(spans[1], more[1])
    dtype = tensors[0].dtype if tensors else None
    if spans is None or more is None or not is_plain or dtype is not gradients[0].dtype or not rounds_as_torch(dtype):
        reference_descents.descend(tensors, gradients, factor=factor)
        return
    _descend(*spans, more[0], factor, np.empty(0, FLOATS[dtype]))


@kernel
def _descend(addresses: Array, sizes: Array, gradients: Array, factor: float, kind: Array) -> None:
    """Step each tensor. `kind` (0,) has their type."""
    alpha = kind.dtype.type(factor)
    for number in range(sizes.size):
        x = carray(pointer_to(addresses[number]), (sizes[number],), kind.dtype)
        g = carray(pointer_to(gradients[number]), (sizes[number],), kind.dtype)
        for i in range(x.size):
            x[i] = fused(g[i], alpha, x[i])
