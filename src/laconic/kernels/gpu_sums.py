"""`plain_sums` on a GPU, by a division that is IEEE's: torch's own multiplies by the inverse there."""

import torch
import triton.language as tl
from torch import Tensor

from laconic.kernels import plain_sums
from laconic.kernels.gpu import blocks_of, kernel, launch

_BLOCK = 1024


def divide(total: Tensor, n: int) -> bool:
    """See plain_sums."""
    if total.dtype not in (torch.float32, torch.float64) or not total.is_contiguous():
        return plain_sums.divide(total, n)
    spoiled = torch.zeros(1, dtype=torch.int32, device=total.device)
    launch(_divide, blocks_of(len(total), _BLOCK), total, len(total), n, spoiled, BLOCK=_BLOCK)
    return not bool(spoiled.item())


@kernel
def _divide(total: tl.tensor, count: tl.int64, n: tl.int64, spoiled: tl.tensor, BLOCK: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(total + at, mask=at < count, other=0)
    divisor = tl.full([BLOCK], n, value.dtype)
    value = tl.div_rn(value, divisor) if value.dtype == tl.float32 else value / divisor
    tl.store(total + at, value, mask=at < count)
    tl.atomic_max(spoiled, tl.max((value - value != 0).to(tl.int32), 0))  # inf - inf is NaN
