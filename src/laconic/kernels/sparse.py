"""Positions, votes and the streams that they are coded in: the functions of the face, by the fastest backend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.dispatch import fastest
from laconic.kernels.reference.ans_gaps import AnsWords, Codes, Numbers
from laconic.kernels.vectors import absolute_maximum as absolute_maximum
from laconic.kernels.vectors import add_at as add_at
from laconic.kernels.vectors import add_into as add_into
from laconic.kernels.vectors import all_finite as all_finite
from laconic.kernels.vectors import clear_at as clear_at
from laconic.kernels.vectors import divide as divide
from laconic.kernels.vectors import gather as gather
from laconic.kernels.vectors import gather_change as gather_change
from laconic.kernels.vectors import gather_scaled as gather_scaled
from laconic.kernels.vectors import scatter as scatter
from laconic.kernels.vectors import take_at as take_at


def top_k(vector: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest magnitudes, exactly; of equal ones, the lower index comes first.

    Args:
        vector: (d,) float32 or float64. NaN counts as larger than infinity.
        k: 1 .. d.

    Returns:
        (k,) int64, ascending.

    Raises:
        TypeError: The vector has another type or shape.
        ValueError: k is outside 1 .. d.
    """
    if vector.ndim != 1 or vector.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"top_k takes (d,) float32 or float64, not {vector.dtype} of shape {tuple(vector.shape)}")
    d = vector.numel()
    if not 1 <= k <= d:
        raise ValueError(f"top_k: k={k} must be in 1 .. d={d}; take fewer elements, or at least one")
    made: Tensor = fastest("top_k", vector.device).top_k(vector, k)
    return made


def ascending(positions: Tensor, count: int) -> bool:
    """Return whether positions ascend, each once, within 0 .. count - 1; see `reference/position_streams.py`."""
    made: bool = fastest("position_streams", positions.device).ascending(positions, count)
    return made


def put_numbers(numbers: Tensor, width: int) -> Tensor:
    """Write numbers of one width into a bit stream; see `reference/position_streams.py`, as for the next three."""
    made: Tensor = fastest("position_streams", numbers.device).put_numbers(numbers, width)
    return made


def take_numbers(data: Tensor, k: int, width: int) -> Tensor:
    """Read numbers of one width from a bit stream."""
    made: Tensor = fastest("position_streams", data.device).take_numbers(data, k, width)
    return made


def put_runs(positions: Tensor, width: int, step: int, from_last: bool, n_bits: int) -> tuple[Tensor, int]:
    """Write positions as a bit stream of runs and numbers; return it and the bits used."""
    family = fastest("position_streams", positions.device)
    made: tuple[Tensor, int] = family.put_runs(positions, width, step, from_last, n_bits)
    return made


def take_runs(
    data: Tensor, n_bits: int, k: int, width: int, step: int, count: int, from_last: bool
) -> tuple[Tensor, int]:
    """Read positions from a bit stream of runs and numbers; return them and the bits used, or -1."""
    family = fastest("position_streams", data.device)
    made: tuple[Tensor, int] = family.take_runs(data, n_bits, k, width, step, count, from_last)
    return made


def ans_encode_gaps(positions: Numbers, starts: Numbers) -> tuple[AnsWords, int]:
    """Encode positions by their gaps with an ANS, in the host's memory; see `reference/ans_gaps.py`."""
    made: tuple[AnsWords, int] = fastest("ans_gaps").ans_encode_gaps(positions, starts)
    return made


def ans_decode_gaps(words: AnsWords, top: int, k: int, starts: Numbers, count: int) -> tuple[Numbers, bool]:
    """Decode positions; return them and whether the stream held them and nothing else."""
    made: tuple[Numbers, bool] = fastest("ans_gaps").ans_decode_gaps(words, top, k, starts, count)
    return made


def ans_encode_symbols(symbols: Codes, starts: Numbers) -> tuple[AnsWords, int]:
    """Encode symbols with an ANS; see `reference/ans_symbols.py`."""
    made: tuple[AnsWords, int] = fastest("ans_symbols").ans_encode_symbols(symbols, starts)
    return made


def ans_decode_symbols(words: AnsWords, top: int, k: int, starts: Numbers) -> tuple[Codes, bool]:
    """Decode symbols; return them and whether the stream held them and nothing else."""
    made: tuple[Codes, bool] = fastest("ans_symbols").ans_decode_symbols(words, top, k, starts)
    return made


def top_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest vote counts, the lowest in `order` first; see `reference/votes.py`."""
    assert 1 <= k <= votes.numel(), (k, votes.numel())
    made: Tensor = fastest("votes", votes.device).top_voted(votes, order, k)
    return made


def vote_counts(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the positions in any of several lists, and in how many lists each is; see `reference/votes.py`."""
    if not lists:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    made: tuple[Tensor, Tensor] = fastest("votes", lists[0].device).vote_counts(lists)
    return made


def hash_at(positions: Tensor, key: int) -> Tensor:
    """Return 32 random bits for each of the positions (n,) int64: (n,) int32; see `reference/hashing.py`."""
    made: Tensor = fastest("votes", positions.device).hash_at(positions, key)
    return made
