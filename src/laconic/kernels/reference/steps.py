"""Steps of plain SGD, to the bits of torch's: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.checksums import largest_and_checksum
from laconic.kernels.reference.stochastic_rounding import ranges
from laconic.kernels.reference.sums import add_up, mixed_difference


@torch.no_grad()
def step_along_mean(values: Tensor, vectors: Sequence[Tensor], *, divisor: int, lr: float) -> None:
    """Take a step along the sum of vectors from 0, in their order, divided by a number: the mean, mostly.

    Args:
        values: (d,), changed in place.
        vectors: At least one; (d,) each, of the type of `values`.
        divisor: What the sum is divided by.
        lr: What the quotient is multiplied by before it is subtracted.
    """
    mean = torch.empty_like(values)
    add_up(vectors, mean, divisor=divisor)
    values.add_(mean, alpha=-lr)


@torch.no_grad()
def gather_mean_step(
    tensors: Sequence[Tensor], factors: Sequence[float], vectors: Sequence[Tensor], out: Tensor, *, divisor: int
) -> tuple[float, int]:
    """Write where a step along a mean leads from tensors, which stay as they are.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        factors: What the mean is multiplied by before it is added to each tensor, such as -lr.
        vectors: At least one; (d,) each, of the type of `out`. Their sum from 0, in their order, is divided.
        out: (d,), overwritten.
        divisor: What the sum is divided by.

    Returns:
        The largest magnitude of `out`, NaN if it has one; and the CRC-32 of its bytes.
    """
    mean = torch.empty_like(out)
    add_up(vectors, mean, divisor=divisor)
    sizes = [tensor.numel() for tensor in tensors]
    for part, tensor, by, factor in zip(
        torch.split(out, sizes), tensors, torch.split(mean, sizes), factors, strict=True
    ):
        torch.add(tensor.reshape(-1).to(out.dtype), by, alpha=factor, out=part)
    return largest_and_checksum(out)


@torch.no_grad()
def gather_step(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float], out: Tensor, *, adds: bool
) -> tuple[float, int]:
    """Write the change that a step makes to tensors: x + factor * gradient, rounded once, less x.

    Args:
        tensors: Tensors of any shapes, d elements in all; they stay as they are.
        gradients: As many, of the same sizes.
        factors: One for each tensor, such as -lr.
        out: (d,), overwritten.
        adds: Whether to add x again, which gives what a change that was sent and added gives.

    Returns:
        The largest magnitude of `out`, NaN if it has one; and the CRC-32 of its bytes.
    """
    parts = torch.split(out, [tensor.numel() for tensor in tensors])
    for part, tensor, gradient, factor in zip(parts, tensors, gradients, factors, strict=True):
        before = tensor.reshape(-1).to(out.dtype)
        torch.add(before, gradient.reshape(-1).to(out.dtype), alpha=factor, out=part)
        part -= before
        if adds:
            part += before
    return largest_and_checksum(out)


@torch.no_grad()
def step_difference(
    tensors: Sequence[Tensor], gradients: Sequence[Tensor], factors: Sequence[float], published: Tensor,
    copies: Sequence[Tensor], weights: Sequence[float], out: Tensor,
) -> tuple[float, tuple[Tensor, Tensor]]:  # fmt: skip
    """Write `mixed_difference` of what a step leads to: `gather_step` that adds, without writing that.

    Args:
        tensors: As for `gather_step`, as the next two.
        gradients: As many.
        factors: One for each.
        published: (d,), as for `mixed_difference`, as the next two.
        copies: (d,) each, at least one.
        weights: One for each copy.
        out: (d,), overwritten; none of the vectors.

    Returns:
        The largest magnitude of what the step leads to, NaN if it has one; and the minimum and the maximum of `out`,
        (1,) of its type each.
    """
    updated = torch.empty_like(out)
    largest, _ = gather_step(tensors, gradients, factors, updated, adds=True)
    mixed_difference(updated, published, copies, weights, out)
    return largest, ranges(out, [out.numel()])
