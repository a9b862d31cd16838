"""A plan's numbers from running ranks, and the links that follow from measured times."""

import pytest

from laconic import ALGORITHMS
from laconic.contract import ModelSpec
from laconic.network import Link
from laconic.planning.candidate import MeasuredLinks
from laconic.planning.measure import _link, gradient_s, measure_network
from laconic.planning.plan import candidates_of
from laconic.planning.query import Query
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

SIZES = (64, 10_000, 1_000_000)


def taking(latency_s, bytes_per_s, n_messages):
    return [n_messages * (latency_s + 4 * size / bytes_per_s) for size in SIZES]


@pytest.mark.parametrize(("latency_s", "bytes_per_s"), [(0.001, 1e7), (0.0, 1e9), (0.25, 1e6)])
def test_the_link_is_the_one_at_which_messages_take_as_long(latency_s, bytes_per_s):
    link = _link(taking(latency_s, bytes_per_s, 9), 9, SIZES)
    assert link.bytes_per_s == pytest.approx(bytes_per_s, rel=0.01)
    assert link.latency_s == pytest.approx(latency_s, rel=0.01, abs=4 * 64 / bytes_per_s)


def test_times_that_make_no_sense_still_give_a_link():
    link = _link([0.5, 0.01, 0.02], 2, SIZES)
    assert link.latency_s >= 0
    assert link.bytes_per_s > 0


def test_a_plan_has_each_exchange_on_the_link_of_its_traffic():
    links = MeasuredLinks(
        server=Link(bytes_per_s=1e6, down_bytes_per_s=4e6), all_to_all=Link(bytes_per_s=2e6), ring=Link(bytes_per_s=5e6)
    )
    asked = Query(spec=ModelSpec.of_sizes(1_000_000), n_workers=4, link=Link(bytes_per_s=1e9), measured=links)
    step_s = {
        candidate.layout.name: asked.step_s(candidate)
        for candidate in candidates_of({"sgd": ALGORITHMS["sgd"]()}, asked, measure=False)
    }
    assert step_s["rank0"] == pytest.approx(3 * 4 / 4 + 3 * 4 / 1, rel=1e-3)
    assert step_s["dedicated"] == pytest.approx(4 * 4 / 4 + 4 * 4 / 1, rel=1e-3)
    assert step_s["sharded"] == pytest.approx(2 * 3 * 1 / 2, rel=1e-3)
    assert step_s["allreduce"] == pytest.approx(2 * 3 * 1 / 5, rel=1e-3)


def measured(rank):
    found = measure_network(PATIENCE_S, rest_s=0.0, large_s=0.01)
    return found, gradient_s("linear", (4,), 2, 8, PATIENCE_S)


@pytest.mark.slow
def test_ranks_measure_their_network_and_a_gradient_and_agree_on_both():
    rank_0, rank_1 = run_ranks(measured, 2)
    assert rank_0[0].links == rank_1[0].links
    assert rank_0[1] == rank_1[1] > 0
    links = rank_0[0].links
    for link in (rank_0[0].link, links.server, links.all_to_all, links.ring):
        assert link.bytes_per_s > 0
        assert link.latency_s > 0
    assert rank_0[0].ranks_per_core > 0
