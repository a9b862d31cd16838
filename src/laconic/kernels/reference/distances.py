"""Squared distances of vectors that tensors make, such as a model's gradients: the reference, in torch."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from laconic.kernels.reference.flatten import gather

_CHUNK = 1 << 16  # elements at a time, in a cache


@torch.no_grad()
def squared_distance(tensors: Sequence[Tensor], others: Sequence[Tensor], *, limit: float = math.inf) -> float:
    """Return ||v - w||^2, where tensors make v and others make w, or a number above the limit if that is above it.

    Differences are float64 if one of the tensors is, else float32; their squares are added in float64. Compiled, they
    are added in another order.

    Args:
        tensors: Tensors of any shapes and float types, d elements in all.
        others: As many elements, in tensors of the same shapes or of others.
        limit: Where it may stop to add up.
    """
    dtype = torch.float64 if any(each.dtype == torch.float64 for each in chain(tensors, others)) else torch.float32
    one, other = (torch.cat([each.detach().reshape(-1).to(dtype) for each in given]) for given in (tensors, others))
    chunk = _CHUNK if one.is_cpu else max(1, one.numel())
    parts = zip(torch.split(one, chunk), torch.split(other, chunk), strict=True)
    return math.fsum(float((part - less).double().square().sum()) for part, less in parts)


def gather_distance(tensors: Sequence[Tensor], other: Tensor, out: Tensor) -> float:
    """Copy tensors, one behind the other, into `out`, and return `squared_distance` of it from a vector.

    Args:
        tensors: Tensors of any shapes and float types, d elements in all.
        other: (d,) of the type of `out`.
        out: (d,), overwritten.
    """
    gather(tensors, out)
    return squared_distance([out], [other])
