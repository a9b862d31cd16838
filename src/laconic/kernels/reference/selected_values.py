"""The values of the elements that a keyed mask selects, as in `reference/signs.py`: the reference, in torch."""

import torch
from torch import Tensor

from laconic.kernels.checks import stream as check_stream
from laconic.kernels.reference import hashing as reference_hashing
from laconic.kernels.reference.signs import ALL_SELECTED


def take_selected(values: Tensor, share: float, offset: int, key: int, threshold: int) -> Tensor:
    """Return the selected values, divided by their probability of being selected.

    Args:
        values: (count,).
        share: The divisor, threshold / 2**32 where the mean over keys shall be the values.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 1 .. 2**32, here and below.

    Returns:
        (k,) of the values' type, in ascending order of coordinates.
    """
    return values[reference_hashing.keep_mask(offset, values.numel(), key, threshold, values.device)] / share


def put_selected(
    selected: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """Write values at the selected elements of a vector, and 0 elsewhere.

    Args:
        selected: (k,), in ascending order of coordinates; another number of values raises ValueError.
        offset: Number of the first coordinate.
        key: 0 .. 2**64 - 1.
        threshold: 1 .. 2**32.
        out: (count,), overwritten.
        sampled: The mask as bits, from `selected_bits`; None to sample it again.
    """
    _put("put_selected", selected, offset, key, threshold, out, sampled)


def _put(
    name: str, selected: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None
) -> None:  # fmt: skip
    count = out.numel()
    if threshold == ALL_SELECTED:
        check_stream(name, selected, count)
        out.copy_(selected)
        return
    if sampled is None:
        mask = reference_hashing.keep_mask(offset, count, key, threshold, out.device)
    else:
        mask = reference_hashing.unpack_bits(sampled, count)
    check_stream(name, selected, int(mask.sum()))
    out.zero_().masked_scatter_(mask, selected.to(out.dtype))


def add_selected(
    selected: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """Add what `put_selected` would write to `total` (count,), in its type, or subtract it."""
    values = torch.empty_like(total)
    _put("add_selected", selected, offset, key, threshold, values, sampled)
    total.add_(values, alpha=-1 if subtract else 1)
