"""Division on a GPU as IEEE 754 has it; torch's own multiplies by the reciprocal there.

Reference: `reference/finite.py`.
"""

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels.gpu.compile import blocks_of, kernel, launch
from laconic.kernels.reference import finite as reference_finite

_BLOCK = 1024


def divide(vector: Tensor, n: int) -> bool:
    """See `reference.finite.divide`."""
    if vector.dtype not in (torch.float32, torch.float64) or not vector.is_contiguous():
        return reference_finite.divide(vector, n)
    non_finite = torch.zeros(1, dtype=torch.int32, device=vector.device)
    limit = reference_finite.max_quotient(vector.dtype, n)
    launch(_divide, blocks_of(len(vector), _BLOCK), vector, len(vector), n, limit, non_finite, BLOCK=_BLOCK)
    return not bool(non_finite.item())


@kernel
def _divide(
    vector: tl.tensor, count: tl.int64, n: tl.int64, limit: tl.float64, non_finite: tl.tensor, BLOCK: tl.constexpr
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(vector + at, mask=at < count, other=0)
    divisor = tl.full([BLOCK], n, value.dtype)
    value = tl.div_rn(value, divisor) if value.dtype == tl.float32 else value / divisor
    tl.store(vector + at, value, mask=at < count)
    fine = tl.abs(value) <= tl.full([BLOCK], limit, value.dtype)  # False for NaN
    tl.atomic_max(non_finite, 1 - tl.min(fine.to(tl.int32), 0))
