"""Arithmetic on whole vectors, the tensors that they are made of, and entries at some of their places."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from laconic.kernels import plain_sums
from laconic.kernels.families import fastest


def take_at(vector: Tensor, places: Tensor) -> Tensor:
    """The entries at some places, (k,) int64, ascending, each once, within the vector; see plain_places."""
    made: Tensor = fastest("places", vector.device).take_at(vector, places)
    return made


def add_at(vector: Tensor, places: Tensor, values: Tensor) -> None:
    """vector (d,) += values (k,) there, of its type."""
    fastest("places", vector.device).add_at(vector, places, values)


def clear_at(vector: Tensor, places: Tensor) -> None:
    """vector (d,) = 0 there."""
    fastest("places", vector.device).clear_at(vector, places)


def divide(vector: Tensor, n: int) -> bool:
    """vector (d,) /= n, in place. Returns whether n such vectors have a finite sum; see plain_sums."""
    if vector.dtype not in (torch.float32, torch.float64):
        return plain_sums.divide(vector, n)
    made: bool = fastest("sums", vector.device).divide(vector, n)
    return made


def all_finite(vector: Tensor) -> bool:
    """Whether no entry of a vector (d,) is inf or NaN; see plain_sums."""
    if vector.device.type != "cpu" or vector.dtype not in (torch.float32, torch.float64) or not vector.is_contiguous():
        return plain_sums.all_finite(vector)
    made: bool = fastest("sums").all_finite(vector)
    return made


def gather(pieces: Sequence[Tensor], out: Tensor, *, among: int = 1) -> bool:
    """out (d,) = the pieces, one behind the other, divided by `among`. Returns if all is fine; see plain_pieces."""
    made: bool = fastest("pieces", out.device).gather(pieces, out, among=among)
    return made


def gather_change(pieces: Sequence[Tensor], start: Tensor, out: Tensor, plus: Tensor | None = None) -> bool:
    """out (d,) = the same less `start` (d,), and then `plus` (d,). Returns whether no entry is inf or NaN."""
    made: bool = fastest("pieces", out.device).gather_change(pieces, start, out, plus)
    return made


def gather_scaled(pieces: Sequence[Tensor], factors: Sequence[float], out: Tensor, plus: Tensor | None = None) -> bool:
    """out (d,) = each piece times its factor, and then `plus` (d,). Returns whether no entry is inf or NaN."""
    made: bool = fastest("pieces", out.device).gather_scaled(pieces, factors, out, plus)
    return made


def add_into(pieces: Sequence[Tensor], places: Tensor, values: Tensor) -> None:
    """The pieces, one behind the other, += values (k,) at some places; see plain_pieces."""
    fastest("pieces", values.device).add_into(pieces, places, values)
    for piece in pieces:
        increment_version(piece)


def scatter(vector: Tensor, pieces: Sequence[Tensor], *, as_sum: bool = False) -> None:
    """vector (d,) into the pieces; as_sum: -0.0 becomes 0.0, as by adding nothing. See plain_pieces."""
    fastest("pieces", vector.device).scatter(vector, pieces, as_sum=as_sum)
    for piece in pieces:
        increment_version(piece)
