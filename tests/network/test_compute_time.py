"""Times of computing: by node, with slow nodes, and with a keyed tail."""

import math

import pytest

from laconic.network import ComputeTime


def test_equal_nodes_take_the_same_time_in_every_step():
    law = ComputeTime(seconds=0.2)
    assert {law.ns(node, step, seed=seed) for node in range(3) for step in range(3) for seed in (0, 1)} == {200_000_000}


def test_a_factor_slows_its_node_alone():
    law = ComputeTime(seconds=0.2, factors={1: 4.0})
    assert [law.ns(node, 0) for node in range(3)] == [200_000_000, 800_000_000, 200_000_000]


def test_each_node_may_have_its_own_time():
    law = ComputeTime(seconds={0: 4.0, 1: 20.0}, factors={1: 0.5})
    assert [law.ns(node, 5) for node in (0, 1)] == [4_000_000_000, 10_000_000_000]


def test_the_tail_is_exponential_and_never_shortens_a_step():
    law = ComputeTime(seconds=0.1, tail_s=0.05)
    added = [law.ns(node, step) / 1e9 - 0.1 for node in range(4) for step in range(1000)]
    assert min(added) >= 0
    assert abs(sum(added) / 4000 - 0.05) < 5 * 0.05 / math.sqrt(4000)
    beyond = sum(one > 0.1 for one in added) / 4000
    assert abs(beyond - math.exp(-2)) < 5 * math.sqrt(0.25 / 4000)


def test_one_seed_gives_the_same_nanoseconds_and_another_gives_others():
    law = ComputeTime(seconds=0.1, tail_s=0.05)
    grid = [(node, step) for node in range(4) for step in range(10)]
    one = [law.ns(*place, seed=7) for place in grid]
    assert [law.ns(*place, seed=7) for place in reversed(grid)] == one[::-1]
    assert len(set(one)) == len(one)
    assert not set(one) & {law.ns(*place, seed=8) for place in grid}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": -1.0}, r"seconds=-1.0 must be at least 0"),
        ({"seconds": math.nan}, r"seconds=nan must be at least 0"),
        ({"seconds": {2: math.inf}}, r"seconds=inf of node 2 must be at least 0 and finite"),
        ({"factors": {1: 0.0}}, r"factors has 0.0 for node 1, which must be above 0"),
        ({"tail_s": -0.1}, r"tail_s=-0.1 must be at least 0"),
    ],
)
def test_a_time_that_cannot_be_is_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        ComputeTime(**settings)


def test_a_law_that_does_not_fit_the_nodes_is_refused():
    ComputeTime(seconds=1.0, factors={2: 2.0}).check(3)
    with pytest.raises(ValueError, match=r"factors names node 2, which must be in 0 \.\. 1"):
        ComputeTime(seconds=1.0, factors={2: 2.0}).check(2)
    with pytest.raises(ValueError, match="seconds names no time for node 1"):
        ComputeTime(seconds={0: 1.0, 2: 1.0}).check(3)
