"""A vector in one piece and the tensors it is made of, in ordinary torch."""

from collections.abc import Sequence

from torch import Tensor

from laconic.kernels.plain_sums import all_finite


def gather(pieces: Sequence[Tensor], out: Tensor) -> bool:
    """out (d,) = the entries of all pieces, one behind the other. Returns whether no entry is inf or NaN."""
    place = 0
    for piece in pieces:
        out[place : place + piece.numel()].view(piece.shape).copy_(piece)
        place += piece.numel()
    return all_finite(out)


def gather_change(pieces: Sequence[Tensor], start: Tensor, out: Tensor) -> bool:
    """out (d,) = the same less `start` (d,). Returns whether no entry is inf or NaN."""
    gather(pieces, out)
    out -= start
    return all_finite(out)


def scatter(vector: Tensor, pieces: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """The inverse of `gather`: vector (d,) into the pieces. as_sum: -0.0 becomes 0.0, as by adding nothing."""
    place = 0
    for piece in pieces:
        part = vector[place : place + piece.numel()].view(piece.shape)
        piece.copy_(part + 0.0 if as_sum else part)
        place += piece.numel()
