"""`plain_votes` in machine code, one thread. The lists ascend, so that sorting them is little more than merging."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.compiled import kernel

Numbers = NDArray[np.int64]


def tally(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See plain_votes."""
    positions = np.concatenate([positions.numpy() for positions in lists])
    positions.sort(kind="stable")
    votes = np.empty_like(positions)
    n = _count_runs(positions, votes)
    return torch.from_numpy(positions[:n]), torch.from_numpy(votes[:n])


def most_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """See plain_votes."""
    how_many = np.bincount(votes.numpy())
    at_least = how_many[::-1].cumsum()
    rank = int(np.searchsorted(at_least, k))
    least = how_many.size - 1 - rank
    n_tied = k - (int(at_least[rank - 1]) if rank else 0)
    tied = np.empty(how_many[least], dtype=np.int32)
    _gather_tied(votes.numpy(), order.numpy(), least, tied)
    last = np.partition(tied, n_tied - 1)[n_tied - 1]
    places = torch.empty(k, dtype=torch.int64)
    _place_winners(votes.numpy(), order.numpy(), least, last, places.numpy())
    return places


@kernel
def _count_runs(positions: Numbers, votes: Numbers) -> int:
    """How often each position stands in a row; overwrites `positions` by one of each. Returns how many there are."""
    n = 0
    for i in range(positions.size):
        if n and positions[n - 1] == positions[i]:
            votes[n - 1] += 1
        else:
            positions[n] = positions[i]
            votes[n] = 1
            n += 1
    return n


@kernel
def _gather_tied(votes: Numbers, order: NDArray[np.int32], least: int, tied: NDArray[np.int32]) -> None:
    """The order of those with `least` votes."""
    n = 0
    for i in range(votes.size):
        if votes[i] == least:
            tied[n] = order[i]
            n += 1


@kernel
def _place_winners(votes: Numbers, order: NDArray[np.int32], least: int, last: np.int32, places: Numbers) -> None:
    """Where there are more than `least` votes, or as many and the order is at most `last`."""
    n = 0
    for i in range(votes.size):
        if votes[i] > least or (votes[i] == least and order[i] <= last):
            places[n] = i
            n += 1
