"""A flat vector and the tensors that it is made of, such as a model's gradient tensors: the reference, in torch."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from laconic.kernels.reference.finite import all_finite, divide


def cut_pieces(pieces: Sequence[Tensor], first: int, stop: int) -> list[Tensor]:
    """Return the parts of flat tensors, one behind the other, between two indices of the vector they make.

    Args:
        tensors: Tensors of any shapes.
        start: First index.
        stop: Index behind the last one.

    Returns:
        Tensors that share memory where torch allows it; those that lie within the range are returned as they are.
    """
    cut = []
    for piece in pieces:
        low, high = max(0, first), min(stop, piece.numel())
        if low < high:
            cut.append(piece if high - low == piece.numel() else piece.reshape(-1)[low:high])
        first, stop = first - piece.numel(), stop - piece.numel()
    return cut


def gather(pieces: Sequence[Tensor], out: Tensor, *, among: int = 1) -> bool:
    """Copy tensors, one behind the other, into a vector, divided by a number.

    Args:
        tensors: Tensors of any shapes and float types, d elements in all.
        out: (d,), overwritten.
        divisor: The divisor.

    Returns:
        Whether no element is inf or NaN; where it divides, whether that many such vectors have a finite sum: see
        `reference.finite.divide`.
    """
    place = 0
    for piece in pieces:
        out[place : place + piece.numel()].view(piece.shape).copy_(piece)
        place += piece.numel()
    return all_finite(out) if among == 1 else divide(out, among)


def gather_change(pieces: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """Write the elements of tensors less a vector, plus another one.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        start: (d,), subtracted.
        out: (d,), overwritten.
        plus: (d,), added after the subtraction; None to add nothing.

    Returns:
        Whether no element of `out` is inf or NaN.
    """
    gather(pieces, out)
    out -= start
    if plus is not None:
        out += plus
    return all_finite(out)


def gather_scaled(pieces: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None = None) -> bool:
    """Write the elements of tensors, each tensor times its own factor, plus a vector.

    Args:
        tensors: Tensors of any shapes, d elements in all.
        factors: One for each tensor.
        out: (d,), overwritten.
        plus: (d,), added after the multiplication; None to add 0.0, which makes -0.0 to 0.0.

    Returns:
        Whether no element of `out` is inf or NaN.
    """
    place = 0
    for piece, factor in zip(pieces, factors, strict=True):
        part = out[place : place + piece.numel()].view(piece.shape)
        part.copy_(piece)
        part *= factor
        place += piece.numel()
    out += 0.0 if plus is None else plus
    return all_finite(out)


def add_into(pieces: Sequence[Tensor], places: Tensor, values: Tensor) -> None:
    """Add values to some elements of tensors, in place.

    Args:
        tensors: Tensors of any shapes, changed in place.
        indices: (k,) int64, indices of the vector that the tensors make, ascending, each once.
        values: (k,).
    """
    stops = torch.tensor([piece.numel() for piece in pieces]).cumsum(0).to(places.device)
    cuts = [0, *torch.searchsorted(places, stops).tolist()]
    for piece, stop, (low, high) in zip(pieces, stops.tolist(), pairwise(cuts), strict=True):
        if low < high:
            at, by = places[low:high] - (stop - piece.numel()), values[low:high]
            rows = torch.unravel_index(at, piece.shape)
            piece[rows] = (piece[rows].to(by.dtype) + by).to(piece.dtype)


def scatter(vector: Tensor, pieces: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """Copy a vector into tensors: the inverse of `gather`.

    Args:
        vector: (d,).
        tensors: Tensors of any shapes, d elements in all, overwritten.
        as_sum: Add 0.0 to each element, which makes -0.0 to 0.0.
    """
    place = 0
    for piece in pieces:
        part = vector[place : place + piece.numel()].view(piece.shape)
        piece.copy_(part + 0.0 if as_sum else part)
        place += piece.numel()
