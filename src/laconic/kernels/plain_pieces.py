"""A vector in one piece and the tensors it is made of, in ordinary torch."""

from collections.abc import Sequence

from torch import Tensor

from laconic.kernels.plain_sums import all_finite, divide


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


def scatter(vector: Tensor, pieces: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """The inverse of `gather`: vector (d,) into the pieces. as_sum: -0.0 becomes 0.0, as by adding nothing."""
    place = 0
    for piece in pieces:
        part = vector[place : place + piece.numel()].view(piece.shape)
        piece.copy_(part + 0.0 if as_sum else part)
        place += piece.numel()
