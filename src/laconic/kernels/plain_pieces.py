"""A vector in one piece and the tensors it is made of, in ordinary torch."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from laconic.kernels.plain_sums import all_finite, divide


def cut_pieces(pieces: Sequence[Tensor], first: int, stop: int) -> list[Tensor]:
    """What lies between two places where pieces lie one behind the other."""
    cut = []
    for piece in pieces:
        low, high = max(0, first), min(stop, piece.numel())
        if low < high:
            cut.append(piece if high - low == piece.numel() else piece.reshape(-1)[low:high])
        first, stop = first - piece.numel(), stop - piece.numel()
    return cut


def gather(pieces: Sequence[Tensor], out: Tensor, *, among: int = 1) -> bool:
    """out (d,) = the entries of all pieces, one behind the other, divided by `among`.

    Returns whether no entry is inf or NaN; where it divides, whether so many such vectors have a finite sum: see
    `plain_sums.divide`.
    """
    place = 0
    for piece in pieces:
        out[place : place + piece.numel()].view(piece.shape).copy_(piece)
        place += piece.numel()
    return all_finite(out) if among == 1 else divide(out, among)


def gather_change(pieces: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """out (d,) = the same less `start` (d,), and then `plus` (d,). Returns whether no entry is inf or NaN."""
    gather(pieces, out)
    out -= start
    if plus is not None:
        out += plus
    return all_finite(out)


def gather_scaled(pieces: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None = None) -> bool:
    """out (d,) = each piece times its factor, and then `plus` (d,). Returns whether no entry is inf or NaN.

    Without `plus` nothing is added: -0.0 becomes 0.0.
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
    """The pieces, one behind the other, += values (k,) at places (k,) int64, ascending, each once."""
    stops = torch.tensor([piece.numel() for piece in pieces]).cumsum(0).to(places.device)
    cuts = [0, *torch.searchsorted(places, stops).tolist()]
    for piece, stop, (low, high) in zip(pieces, stops.tolist(), pairwise(cuts), strict=True):
        if low < high:
            at, by = places[low:high] - (stop - piece.numel()), values[low:high]
            rows = torch.unravel_index(at, piece.shape)
            piece[rows] = (piece[rows].to(by.dtype) + by).to(piece.dtype)


def scatter(vector: Tensor, pieces: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """The inverse of `gather`: vector (d,) into the pieces. as_sum: -0.0 becomes 0.0, as by adding nothing."""
    place = 0
    for piece in pieces:
        part = vector[place : place + piece.numel()].view(piece.shape)
        piece.copy_(part + 0.0 if as_sum else part)
        place += piece.numel()
