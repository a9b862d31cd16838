"""The values of the entries that a keyed coin keeps, in ordinary torch. Coins as in `plain_signs`."""

import torch
from torch import Tensor

from laconic.kernels import plain
from laconic.kernels.plain_signs import ALL_KEPT


def take_kept(values: Tensor, share: float, first: int, key: int, threshold: int) -> Tensor:
    """values (count,) / share where kept: (kept,), in ascending order. threshold: 1 .. 2**32, as everywhere here."""
    return values[plain.keep_mask(first, values.numel(), key, threshold, values.device)] / share


def put_kept(kept: Tensor, first: int, key: int, threshold: int, out: Tensor, drawn: Tensor | None = None) -> None:
    """out (count,) = the next one of `kept` (k,) where kept, 0 elsewhere. drawn: from `plain_signs.kept_bits`."""
    if threshold == ALL_KEPT:
        out.copy_(kept)
        return
    count = out.numel()
    if drawn is None:
        mask = plain.keep_mask(first, count, key, threshold, out.device)
    else:
        mask = plain.unpack_bits(drawn, count)
    out.zero_().masked_scatter_(mask, kept.to(out.dtype))


def add_kept(kept: Tensor, first: int, key: int, threshold: int, total: Tensor, drawn: Tensor | None = None) -> None:
    """The same, added to `total` (count,), in its type."""
    values = torch.empty_like(total)
    put_kept(kept, first, key, threshold, values, drawn)
    total.add_(values)
