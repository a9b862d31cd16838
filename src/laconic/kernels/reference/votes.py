"""Votes for coordinates: counting them, and choosing the most voted; sparse sums: the reference, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from laconic.kernels.reference.hashing import hash_at as hash_at


def vote_counts(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Count in how many lists each position occurs.

    Args:
        lists: At least one; (k,) int64 each, no position twice in one list.

    Returns:
        The positions that occur, ascending, and their vote counts: (n,) int64 both.
    """
    voted, votes = torch.unique(torch.cat(list(lists)), return_counts=True)
    return voted, votes


def list_difference(positions: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Compare two lists of positions, (k,) and (n,) int64, ascending, each once.

    Returns:
        The positions that are not among the others, and the indices in `others` of those that are not among the
        positions: int64 both, ascending.
    """
    missing = ~torch.isin(others, positions, assume_unique=True)
    return positions[~torch.isin(positions, others, assume_unique=True)], missing.nonzero().flatten()


def revised_list(positions: Tensor, dropped: Tensor, added: Tensor) -> Tensor:
    """Return a list of positions (k,) int64 less those at some of its indices, plus others: ascending, each once.

    Args:
        positions: (k,) int64, ascending, each once.
        dropped: (m,) int64, indices in it, ascending, each once.
        added: (n,) int64, ascending, each once; what is in the list already does not come twice.
    """
    stays = torch.ones(positions.numel(), dtype=torch.bool, device=positions.device)
    stays[dropped] = False
    revised: Tensor = torch.unique(torch.cat([positions[stays], added]))
    return revised


def union_sum(lists: Sequence[Tensor], values: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Add up sparse vectors, from zero and in their order.

    Args:
        lists: At least one; the positions of each, (k,) int64, ascending, each once.
        values: Of each the values there, (k,).
        dtype: Type of the values.

    Returns:
        The positions that occur, ascending, and the sums there: (n,) int64 and (n,) of `dtype`.
    """
    union = torch.unique(torch.cat(list(lists)))
    sums = torch.zeros(union.numel(), dtype=dtype, device=union.device)
    for positions, added in zip(lists, values, strict=True):
        sums.index_add_(0, torch.searchsorted(union, positions.contiguous()), added)
    return union, sums


def top_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest vote counts.

    Args:
        votes: (n,) int64, none negative.
        order: (n,) int32, no two equal; of equal counts, those lowest in `order` come first.
        k: 1 .. n.

    Returns:
        (k,) int64, ascending.

    Raises:
        ValueError: Equal numbers in `order` would select more.
    """
    n_at_threshold = votes.bincount().flip(0).cumsum(0)  # how many have the maximum, or one less, and so on
    threshold = n_at_threshold.numel() - 1 - int((n_at_threshold < k).sum())
    wins, tied = votes > threshold, votes == threshold
    last = order[tied].kthvalue(k - int(wins.sum())).values
    selected = (wins | tied & (order <= last)).nonzero().flatten()
    if len(selected) != k:
        raise ValueError("top_voted: order has equal numbers; of tied ones, the lowest shall win")
    return selected
