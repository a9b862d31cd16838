"""`plain_sums` in machine code, one thread, one pass: bit for bit the same."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.compiled import kernel


def divide(total: Tensor, n: int) -> bool:
    """See plain_sums."""
    assert total.is_contiguous()
    return bool(_divide(total.detach().numpy(), float(n)))


@kernel
def _divide(total: NDArray[Any], n: float) -> bool:
    number = total.dtype.type
    by, none = number(n), number(0)
    spoiled = False
    for start in range(0, total.size, 1024):
        part = total[start : start + 1024]
        wrong = np.uint32(0)
        for i in range(part.size):
            part[i] /= by
            wrong |= np.uint32(part[i] - part[i] != none)  # inf and NaN alone
        spoiled |= wrong != 0
    return not spoiled


def subtract(one: Tensor, other: Tensor, out: Tensor) -> bool:
    """See plain_sums."""
    assert one.numel() == other.numel() == out.numel()
    return bool(_subtract(one.detach().numpy(), other.numpy(), out.numpy()))


@kernel
def _subtract(one: NDArray[Any], other: NDArray[Any], out: NDArray[Any]) -> bool:
    none = out.dtype.type(0)
    spoiled = False
    for start in range(0, out.size, 1024):
        minuend, subtrahend, part = one[start : start + 1024], other[start : start + 1024], out[start : start + 1024]
        wrong = np.uint32(0)
        for i in range(part.size):
            part[i] = minuend[i] - subtrahend[i]
            wrong |= np.uint32(part[i] - part[i] != none)  # inf and NaN alone
        spoiled |= wrong != 0
    return not spoiled
