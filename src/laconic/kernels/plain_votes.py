"""Votes for coordinates, in ordinary torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.plain import hash_at as hash_at


def tally(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The positions in any of the lists, (k,) int64 each, and in how many: (n,) int64 both, positions ascending.

    No list has a position twice. There is at least one list.
    """
    voted, votes = torch.unique(torch.cat(list(lists)), return_counts=True)
    return voted, votes


def most_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """The places of the k most `votes` (n,) int64, none negative: (k,) int64, ascending.

    order: (n,) int32, no two equal; of equal votes the lowest come first.
    """
    at_least = votes.bincount().flip(0).cumsum(0)  # how many have the most votes, or one less, and so on
    least = at_least.numel() - 1 - int((at_least < k).sum())
    wins, tied = votes > least, votes == least
    last = order[tied].kthvalue(k - int(wins.sum())).values
    return (wins | tied & (order <= last)).nonzero().flatten()
