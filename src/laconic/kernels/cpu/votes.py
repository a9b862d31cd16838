"""Votes for coordinates and sums of sparse vectors, compiled, on one thread; nothing is sorted.

Reference: `reference/votes.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import int64, uint32, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.hashing import hash32
from laconic.kernels.cpu.llvm.vectors import lowest
from laconic.kernels.reference.hashing import key_words

Numbers = NDArray[np.int64]
Ranks = NDArray[np.int32]
Array = NDArray[Any]

_BLOCK = 1 << 13  # coordinates that are counted at a time, in the first-level cache
_NONE = np.iinfo(np.int64).max  # beyond every position
_BIN_BITS = 11
_BINS = 1 << _BIN_BITS


def vote_counts(lists: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """See `reference.votes.vote_counts`."""
    positions = np.concatenate([positions.numpy() for positions in lists])
    stops = np.array([positions.numel() for positions in lists]).cumsum()
    voted, votes = np.empty((2, positions.size + 1), np.int64)
    n = int(_vote_counts(positions, stops, voted, votes))
    return torch.from_numpy(voted[:n]), torch.from_numpy(votes[:n])


def list_difference(positions: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """See `reference.votes.list_difference`."""
    entering, leaving = (torch.empty(given.numel() + 1, dtype=torch.int64) for given in (positions, others))
    n, m = _list_difference(
        positions.contiguous().numpy(), others.contiguous().numpy(), entering.numpy(), leaving.numpy()
    )  # fmt: skip
    return entering[:n], leaving[:m]


def revised_list(positions: Tensor, dropped: Tensor, added: Tensor) -> Tensor:
    """See `reference.votes.revised_list`."""
    revised = torch.empty(positions.numel() - dropped.numel() + added.numel(), dtype=torch.int64)
    old, less, more = (each.contiguous().numpy() for each in (positions, dropped, added))
    return revised[: int(_revised_list(old, less, more, revised.numpy()))]


def union_sum(lists: Sequence[Tensor], values: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """See `reference.votes.union_sum`."""
    positions = np.concatenate([positions.numpy() for positions in lists])
    added = np.concatenate([each.detach().numpy() for each in values])
    stops = np.array([positions.numel() for positions in lists]).cumsum()
    union, sums = np.empty(positions.size + 1, np.int64), np.empty(positions.size + 1, added.dtype)
    n = int(_union_sum(positions, added, stops, union, sums))
    return torch.from_numpy(union[:n]), torch.from_numpy(sums[:n])


def hash_at(positions: Tensor, key: int) -> Tensor:
    """See `reference.hashing.hash_at`."""
    hashes = torch.empty(positions.numel(), dtype=torch.int32)
    low, high = key_words(key)
    _hash_at(positions.contiguous().numpy(), low, high, hashes.numpy())
    return hashes


def top_voted(votes: Tensor, order: Tensor, k: int) -> Tensor:
    """See `reference.votes.top_voted`."""
    indices = torch.empty(k + 1, dtype=torch.int64)  # one more: every index is written, and stays if selected
    if not _top_voted(votes.contiguous().numpy(), order.contiguous().numpy(), indices.numpy()):
        raise ValueError("top_voted: order has equal numbers; of tied ones, the lowest shall win")
    return indices[:k]


@inlined
def _nearest(positions: Numbers, at: Array, ends: Array) -> Any:  # noqa: ANN401 - int64
    """Return the smallest position that is still ahead in any list; _NONE if there is none."""
    smallest = _NONE
    for i in range(at.size):
        if at[i] < ends[i]:
            smallest = min(smallest, positions[at[i]])
    return smallest


@kernel
def _vote_counts(positions: Numbers, stops: Numbers, voted: Numbers, votes: Numbers) -> Any:  # noqa: ANN401 - int64
    """Write the positions in any list, ascending, and in how many lists each is.

    Args:
        positions: All lists, one behind the other.
        stops: (lists,), where each list ends.
        voted: Overwritten; one element longer than needed.
        votes: Overwritten; one element longer than needed.

    Returns:
        How many positions there are.
    """
    counts, marks = np.zeros(_BLOCK, np.uint32), np.zeros(_BLOCK // 64, np.uint64)
    at, ends = np.zeros(stops.size, np.uint64), stops.astype(np.uint64)
    at[1:] = ends[:-1]
    n = uint64(0)
    while True:
        smallest = _nearest(positions, at, ends)
        if smallest == _NONE:
            return int64(n)
        base = smallest // _BLOCK * _BLOCK
        for i in range(at.size):
            j, end = at[i], ends[i]
            while j < end and positions[j] - base < _BLOCK:
                place = uint64(positions[j] - base)
                counts[place] += uint32(1)
                marks[place >> uint64(6)] |= uint64(1) << (place & uint64(63))
                j += uint64(1)
            at[i] = j
        for word in range(marks.size):
            bits = marks[word]
            marks[word] = uint64(0)
            for _ in range(2):  # mostly enough, and no branch to predict: one too many is overwritten
                n = _emit(bits, uint64(64 * word), base, counts, n, voted, votes)
                bits &= bits - uint64(1)
            while bits:
                n = _emit(bits, uint64(64 * word), base, counts, n, voted, votes)
                bits &= bits - uint64(1)


@kernel
def _list_difference(positions: Numbers, others: Numbers, entering: Numbers, leaving: Numbers) -> Any:  # noqa: ANN401
    """Write what is in one of two lists, without a branch to predict: what is in both is overwritten by the next.

    Args:
        positions: A list, ascending.
        others: Another one.
        entering: Overwritten with the positions; one element longer than needed.
        leaving: Overwritten with indices of the others; one element longer than needed.

    Returns:
        How many positions and how many indices there are.
    """
    i, j, n, m, one_more = uint64(0), uint64(0), uint64(0), uint64(0), uint64(1)
    while i < uint64(positions.size) and j < uint64(others.size):
        one, other = positions[i], others[j]
        entering[n], leaving[m] = one, int64(j)
        n += uint64(one < other)
        m += uint64(other < one)
        i += uint64(one <= other)
        j += uint64(other <= one)
    while i < uint64(positions.size):
        entering[n] = positions[i]
        i, n = i + one_more, n + one_more
    while j < uint64(others.size):
        leaving[m] = int64(j)
        j, m = j + one_more, m + one_more
    return int64(n), int64(m)


@kernel
def _revised_list(positions: Numbers, dropped: Numbers, added: Numbers, revised: Numbers) -> Any:  # noqa: ANN401
    """Write a list less those at indices, plus others. Returns how many there are."""
    n, left, more = 0, 0, 0  # written, left out, and added so far
    for i in range(positions.size):
        if left < dropped.size and dropped[left] == i:
            left += 1
            continue
        while more < added.size and added[more] < positions[i]:
            revised[n] = added[more]
            n, more = n + 1, more + 1
        if more < added.size and added[more] == positions[i]:
            more += 1
        revised[n] = positions[i]
        n += 1
    for k in range(more, added.size):
        revised[n] = added[k]
        n += 1
    return n


@kernel
def _union_sum(positions: Numbers, values: Array, stops: Numbers, union: Numbers, sums: Array) -> Any:  # noqa: ANN401
    """Write the positions in any list, ascending, and the sum of the values there, added in the order of the lists.

    Args:
        positions: All lists, one behind the other.
        values: (positions,), the value at each.
        stops: (lists,), where each list ends.
        union: Overwritten; one element longer than needed.
        sums: Overwritten; one element longer than needed.

    Returns:
        How many positions there are.
    """
    totals, marks = np.zeros(_BLOCK, values.dtype), np.zeros(_BLOCK // 64, np.uint64)
    at, ends = np.zeros(stops.size, np.uint64), stops.astype(np.uint64)
    at[1:] = ends[:-1]
    n = uint64(0)
    while True:
        smallest = _nearest(positions, at, ends)
        if smallest == _NONE:
            return int64(n)
        base = smallest // _BLOCK * _BLOCK
        for i in range(at.size):
            j, end = at[i], ends[i]
            while j < end and positions[j] - base < _BLOCK:
                place = uint64(positions[j] - base)
                totals[place] += values[j]
                marks[place >> uint64(6)] |= uint64(1) << (place & uint64(63))
                j += uint64(1)
            at[i] = j
        for word in range(marks.size):
            bits = marks[word]
            marks[word] = uint64(0)
            while bits:
                n = _emit(bits, uint64(64 * word), base, totals, n, union, sums)
                bits &= bits - uint64(1)


@inlined
def _emit(bits: Any, word: Any, base: int, counts: Any, n: Any, voted: Numbers, votes: Any) -> Any:  # noqa: ANN401
    """Write the lowest marked coordinate of a word, and its count or sum. Returns how many are written so far.

    Where no bit is set, the count stays and what was written is overwritten by the next one.
    """
    place = word + (uint64(lowest(bits)) & uint64(63))
    voted[n] = base + int64(place)
    votes[n] = counts[place]
    counts[place] = 0
    return n + uint64(bits != uint64(0))


@kernel
def _hash_at(positions: Numbers, low: int, high: int, hashes: Ranks) -> None:
    below, above = uint32(low), uint32(high)
    for i in range(positions.size):
        hashes[i] = np.int32(hash32(uint32(positions[i]), below, above))


@kernel
def _top_voted(votes: Numbers, order: Ranks, indices: Numbers) -> bool:
    """Write indices to all of `indices` but the last element. Every index is written, and stays if selected.

    Returns:
        False if equal numbers in `order` would select more.
    """
    highest = int64(0)
    for i in range(votes.size):
        highest = max(highest, votes[i])
    how_many = np.zeros(4 * (highest + 1), np.int64)  # four counters in turn, so that none waits for the one before
    for i in range(votes.size):
        how_many[uint64(4) * uint64(votes[i]) + uint64(i & 3)] += 1
    threshold, left = highest, indices.size - 1
    while how_many[4 * threshold : 4 * threshold + 4].sum() < left:
        left -= how_many[4 * threshold : 4 * threshold + 4].sum()
        threshold -= 1
    tied, n = np.empty(votes.size + 1, np.int32), uint64(0)
    for i in range(votes.size):
        tied[n] = order[i]
        n += uint64(votes[i] == threshold)
    last, n, k = _smallest(tied[: int64(n)], left), uint64(0), uint64(indices.size - 1)
    for i in range(votes.size):
        indices[min(n, k)] = i
        n += uint64(votes[i] > threshold) | (uint64(votes[i] == threshold) & uint64(order[i] <= last))
    return bool(n == k)


@inlined
def _smallest(ranks: Ranks, k: int) -> Any:  # noqa: ANN401 - int32
    """Return the k-th smallest number: counted by its highest 11 bits, then partitioned among those that share them."""
    counts, sign_bit = np.zeros(_BINS, np.int64), uint32(1 << 31)
    for i in range(ranks.size):
        counts[(uint32(ranks[i]) ^ sign_bit) >> uint32(32 - _BIN_BITS)] += 1
    bin_ = uint32(0)
    while counts[bin_] < k:
        k -= counts[bin_]
        bin_ += uint32(1)
    there, n = np.empty(counts[bin_] + 1, np.int32), uint64(0)
    for i in range(ranks.size):
        there[n] = ranks[i]
        n += uint64((uint32(ranks[i]) ^ sign_bit) >> uint32(32 - _BIN_BITS) == bin_)
    return np.partition(there[:-1], k - 1)[k - 1]
