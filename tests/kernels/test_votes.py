"""Votes: the compiled kernels against reference_hashing torch, and both against counting one by one."""

from collections import Counter

import pytest
import torch

from laconic.kernels.api import hash_at, top_voted, union_sum, vote_counts
from laconic.kernels.cpu import votes as cpu_votes
from laconic.kernels.reference import hashing as reference_hashing
from laconic.kernels.reference import votes as reference_votes
from support.inputs import over_inputs

both = pytest.mark.parametrize("kernels", [reference_votes, cpu_votes], ids=["plain", "cpu"])


def random_lists(n_lists: int, k: int, divisor: int, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randperm(divisor, generator=random)[:k].sort().values for _ in range(n_lists)]


@both
@over_inputs(
    ("n_lists", "k", "divisor"),
    [(1, 5, 9), (2, 7, 7), (3, 40, 100), (64, 11, 1000), (3, 900, 60_000), (300, 2, 3), (4, 5, 10**7)],
)
@pytest.mark.slow
def test_vote_counts_say_in_how_many_lists_each_position_is(kernels, n_lists, k, divisor):
    lists = random_lists(n_lists, k, divisor)
    before = [positions.clone() for positions in lists]
    voted, votes = kernels.vote_counts(lists)
    counted = Counter(position for positions in lists for position in positions.tolist())
    assert voted.tolist() == sorted(counted)
    assert votes.tolist() == [counted[position] for position in sorted(counted)]
    assert voted.dtype == votes.dtype == torch.int64
    assert all(torch.equal(*pair) for pair in zip(before, lists, strict=True))


@both
@over_inputs("dtype", [torch.float32, torch.float64])
def test_a_union_sum_adds_from_zero_in_the_order_of_the_lists(kernels, dtype):
    lists = [*random_lists(3, 900, 20_000), torch.empty(0, dtype=torch.int64)]
    random = torch.Generator().manual_seed(1)
    values = [torch.randn(positions.numel(), generator=random, dtype=dtype) for positions in lists]
    values[0][:50] = -0.0
    union, sums = kernels.union_sum(lists, values, dtype)
    total = torch.zeros(20_000, dtype=dtype)
    for positions, added in zip(lists, values, strict=True):
        total[positions] += added
    assert union.tolist() == sorted({position for positions in lists for position in positions.tolist()})
    assert sums.dtype == dtype
    assert torch.equal(sums, total[union])
    assert torch.equal(sums.signbit(), total[union].signbit())  # no -0.0 comes through


def test_a_union_sum_of_nothing_is_empty():
    for lists in ([], [torch.empty(0, dtype=torch.int64)]):
        union, sums = union_sum(lists, [torch.empty(0) for _ in lists], torch.float32)
        assert (union.tolist(), sums.tolist(), sums.dtype) == ([], [], torch.float32)


@over_inputs("key", [0, 0x4806654E26238EC1])
def test_both_hash_positions_alike(key):
    positions = torch.cat([torch.arange(1000), 2**31 - 1 - torch.arange(9), torch.tensor([2**32 - 1])])
    assert torch.equal(hash_at(positions, key), reference_hashing.hash_at(positions, key))
    assert torch.equal(hash_at(positions[:1000], key), reference_hashing.hash32(0, 1000, key))


def test_vote_counts_of_no_lists_or_empty_ones_are_empty():
    none = torch.empty(0, dtype=torch.int64)
    for voted, votes in (
        vote_counts([]),
        cpu_votes.vote_counts([none, none]),
        reference_votes.vote_counts([none, none]),
    ):
        assert voted.tolist() == votes.tolist() == []


@both
@over_inputs("highest", [1, 2, 5])
@over_inputs("k", [1, 7, 199, 200])
def test_the_highest_votes_win_and_of_equal_ones_the_lowest_in_order(kernels, highest, k):
    votes = torch.randint(0, highest + 1, (200,), generator=torch.Generator().manual_seed(k))
    order = reference_hashing.hash_at(torch.arange(200), key=k)
    best = sorted(range(200), key=lambda place: (-int(votes[place]), int(order[place])))[:k]
    assert kernels.top_voted(votes, order, k).tolist() == sorted(best)
    assert top_voted(votes, order, k).dtype == torch.int64


@both
@over_inputs(("k", "n"), [(0, 5), (5, 0), (0, 0), (1, 1), (40, 70), (900, 300)])
def test_a_difference_of_lists_has_what_is_in_one_of_them_alone(kernels, k, n):
    positions, others = random_lists(1, k, 1000)[0], random_lists(1, n, 1000, seed=1)[0]
    entering, leaving = kernels.list_difference(positions, others)
    assert entering.tolist() == sorted({*positions.tolist()} - {*others.tolist()})
    assert others[leaving].tolist() == sorted({*others.tolist()} - {*positions.tolist()})
    assert kernels.list_difference(positions, positions)[0].tolist() == []


@both
@over_inputs(("k", "m", "n"), [(0, 0, 5), (5, 5, 0), (40, 0, 70), (900, 300, 90)])
def test_a_revised_list_has_what_stays_and_what_is_added_each_once(kernels, k, m, n):
    positions, added = random_lists(1, k, 1000)[0], random_lists(1, n, 1000, seed=1)[0]
    dropped = random_lists(1, m, max(k, 1), seed=2)[0]
    stays = {position for place, position in enumerate(positions.tolist()) if place not in dropped.tolist()}
    assert kernels.revised_list(positions, dropped, added).tolist() == sorted(stays | {*added.tolist()})
