"""A flat vector and the tensors that it is made of, such as a model's gradient tensors: the reference, in torch."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from laconic.kernels.reference.finite import absolute_maximum, all_finite, divide
from laconic.kernels.reference.hashing import unpack_bits


def slice_tensors(tensors: Sequence[Tensor], start: int, stop: int) -> list[Tensor]:
    """Return the parts of flat tensors, one behind the other, between two indices of the vector they make.

    Args:
        tensors: Tensors of any shapes.
        start: First index.
        stop: Index behind the last one.

    Returns:
        Tensors that share memory where torch allows it; those that lie within the range are returned as they are.
    """
    slices = []
    for tensor in tensors:
        n = tensor.numel()
        if start < n and stop > 0 and start < stop and n:
            slices.append(tensor if start <= 0 and stop >= n else tensor.reshape(-1)[max(0, start) : stop])
        start, stop = start - n, stop - n
    return slices


@torch.no_grad()
def gather(tensors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, limit: float | None = None) -> bool:
    """Copy tensors, one behind the other, into a vector, divided by a number.

    Args:
        tensors: Tensors of any shapes and float types, d elements in all.
        out: (d,), overwritten.
        divisor: The divisor.
        limit: The magnitude to look for, where nothing is divided.

    Returns:
        Whether no element is inf or NaN; with a limit, whether none is NaN or has a magnitude above it; where it
        divides, whether that many such vectors have a finite sum: see `reference.finite.divide`.
    """
    place = 0
    for tensor in tensors:
        out[place : place + tensor.numel()].view(tensor.shape).copy_(tensor)
        place += tensor.numel()
    if limit is not None:
        return absolute_maximum(out) <= limit
    return all_finite(out) if divisor == 1 else divide(out, divisor)


@torch.no_grad()
def gather_largest(tensors: Sequence[Tensor], out: Tensor) -> float:
    """Copy tensors, one behind the other, into a vector (d,), and return the largest magnitude; NaN if it has one."""
    gather(tensors, out)
    return absolute_maximum(out)


@torch.no_grad()
def equals(tensors: Sequence[Tensor], vector: Tensor) -> bool:
    """Return whether tensors, one behind the other, have the values of a vector (d,), and those of zero its sign.

    A NaN equals at most one with the same bits.
    """
    parts = torch.split(vector, [tensor.numel() for tensor in tensors])
    pairs = [(part, tensor.reshape(-1).to(vector.dtype)) for part, tensor in zip(parts, tensors, strict=True)]
    return all(torch.equal(one, other) and torch.equal(one.signbit(), other.signbit()) for one, other in pairs)


@torch.no_grad()
def gather_change(tensors: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """Write the elements of tensors less a vector, plus another one.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        start: (d,), subtracted.
        out: (d,), overwritten.
        plus: (d,), added after the subtraction; None to add nothing.

    Returns:
        Whether no element of `out` is inf or NaN.
    """
    gather(tensors, out)
    out -= start
    if plus is not None:
        out += plus
    return all_finite(out)


@torch.no_grad()
def gather_scaled(
    tensors: Sequence[Tensor],
    factors: Sequence[float],
    out: Tensor,
    plus: Tensor | Sequence[Tensor] | None = None,
    *,
    divisor: int = 1,
) -> bool:
    """Write the elements of tensors, each tensor times its own factor, plus a vector, divided by a number.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        factors: One for each tensor.
        out: (d,), overwritten.
        plus: (d,), or as many tensors of the same sizes, added after the multiplication; None to add 0.0, which makes
            -0.0 to 0.0.
        divisor: The divisor of the sum.

    Returns:
        Whether no element of `out` is inf or NaN; where it divides, whether that many such vectors have a finite sum:
        see `reference.finite.divide`.
    """
    place = 0
    for tensor, factor in zip(tensors, factors, strict=True):
        part = out[place : place + tensor.numel()].view(tensor.shape)
        part.copy_(tensor)
        part *= factor
        place += tensor.numel()
    if plus is None or isinstance(plus, Tensor):
        out += 0.0 if plus is None else plus
    else:
        for part, more in zip(torch.split(out, [tensor.numel() for tensor in plus]), plus, strict=True):
            part += more.reshape(-1)
    return all_finite(out) if divisor == 1 else divide(out, divisor)


@torch.no_grad()
def add_into(tensors: Sequence[Tensor], indices: Tensor, values: Tensor) -> None:
    """Add values to some elements of tensors, in place.

    Args:
        tensors: Tensors of any shapes, changed in place.
        indices: (k,) int64, indices of the vector that the tensors make, ascending, each once.
        values: (k,).
    """
    stops = torch.tensor([tensor.numel() for tensor in tensors]).cumsum(0).to(indices.device)
    bounds = [0, *torch.searchsorted(indices.contiguous(), stops).tolist()]
    for tensor, stop, (low, high) in zip(tensors, stops.tolist(), pairwise(bounds), strict=True):
        if low < high:
            at, by = indices[low:high] - (stop - tensor.numel()), values[low:high]
            rows = torch.unravel_index(at, tensor.shape)
            tensor[rows] = (tensor[rows].to(by.dtype) + by).to(tensor.dtype)


@torch.no_grad()
def scatter(vector: Tensor, tensors: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """Copy a vector into tensors: the inverse of `gather`.

    Args:
        vector: (d,).
        tensors: Tensors of any shapes, d elements in all, overwritten.
        as_sum: Add 0.0 to each element, which makes -0.0 to 0.0.
    """
    place = 0
    for tensor in tensors:
        part = vector[place : place + tensor.numel()].view(tensor.shape)
        tensor.copy_(part + 0.0 if as_sum else part)
        place += tensor.numel()


@torch.no_grad()
def scatter_packed_signs(packed: Tensor, factors: Sequence[float], tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors, one behind the other, by signs times a factor for each tensor.

    Args:
        packed: (ceil(d / 8),) uint8, one bit an element, lowest first; set for minus.
        factors: One for each tensor.
        tensors: Tensors of any shapes, d elements in all.
    """
    negative, place = unpack_bits(packed, sum(tensor.numel() for tensor in tensors)), 0
    for tensor, factor in zip(tensors, factors, strict=True):
        of_tensor = negative[place : place + tensor.numel()].view(tensor.shape)
        size = torch.full_like(tensor, factor)
        tensor.copy_(torch.where(of_tensor, -size, size))
        place += tensor.numel()
