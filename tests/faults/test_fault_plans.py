"""A fault plan in a job: what is refused, and how often things happen."""

import math
from dataclasses import replace

import pytest

import laconic
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.faults.events import Event
from laconic.faults.plan import FaultPlan
from support import methods

LOST = FaultPlan(lost=0.1)
REFUSED = {
    "a method that does not tolerate lost packets": (
        {"algorithm": "sgd", "layout": "rank0", "faults": LOST}, "sgd does not tolerate lost packets: .* as ec-sgd"),
    "a method that does not tolerate late packets": (
        {"algorithm": "lasg", "faults": FaultPlan(late=0.1)}, "lasg does not tolerate late packets"),
    "a method that does not tolerate corrupted packets": (
        {"algorithm": "lag", "faults": FaultPlan(events=(Event(round=1, worker=0, kind="corrupted"),))},
        "lag does not tolerate corrupted packets"),
    "a method that does not tolerate crashes": (
        {"algorithm": "signsgd-mv", "faults": FaultPlan(crashed=0.1)}, "signsgd-mv does not tolerate crashed"),
    "no server": (
        {"algorithm": "sgd", "faults": FaultPlan(duplicated=0.1)}, "'allreduce' has no server .* use rank0, dedicated"),
    "a graph": ({"algorithm": "dsgd", "faults": FaultPlan()}, "dsgd has mode='decentralized'"),
    "a straggler that is not there": (
        {"faults": FaultPlan(stragglers={4: 2.0})}, "stragglers: worker 4 must be in 0 .. 3"),
    "a link that is not there": ({"faults": FaultPlan(slow_links={9: 0.5})}, "slow_links: worker 9 must be in 0 .. 3"),
    "an event elsewhere": (
        {"faults": FaultPlan(events=(Event(round=2, worker=7, kind="lost"),))},
        "event of round 2: worker 7 must be in 0 .. 3"),
    "an exchange that is not there": (
        {"faults": FaultPlan(events=(Event(round=2, worker=1, kind="lost", exchange=1),))},
        "event of round 2: exchange 1 must be 0, since a round of ec-sgd has 1 exchange;"),
    "one exchange more than a method has": (
        {"algorithm": "ssgd-mv", "faults": FaultPlan(events=(Event(round=2, worker=1, kind="lost", exchange=2),))},
        r"event of round 2: exchange 2 must be in 0 \.\. 1, since a round of ssgd-mv has 2 exchanges;"),
    "too many inverted links": ({"faults": FaultPlan(inverted_links=5)}, "inverted_links=5 must be at most workers=4"),
    "slow workers without a time": ({"faults": FaultPlan(straggle=0.1)}, "stragglers need a time of computing"),
    "a factor of an unlimited bandwidth": (
        {"faults": FaultPlan(slow_links={1: 0.5})}, "slow_links names worker 1, whose link has an unlimited bandwidth"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_plan_that_the_job_does_not_admit_is_refused_before_it_starts(case):
    job, message = REFUSED[case]
    algorithm = methods.with_test_settings(job.get("algorithm", "ec-sgd"))
    with pytest.raises(ValueError, match=message):
        Simulated(
            algorithm, spec=ModelSpec.of_sizes(20), n_workers=4, layout=job.get("layout", "auto"), faults=job["faults"]
        )


def test_dense_rounds_which_keep_no_residual_are_refused_with_a_plan_that_loses_packets():
    algorithm = laconic.SSGDTopK(density=0.25, dense_rounds=2)
    with pytest.raises(
        ValueError, match="dense warm-up rounds of ssgd-topk keep no residual, so lost packets would be lost"
    ):
        Simulated(algorithm, spec=ModelSpec.of_sizes(20), n_workers=4, faults=LOST)


def test_faults_are_as_frequent_as_their_probabilities_and_independent():
    share, n = 0.2, 5000
    for kind in ("lost", "late", "corrupted", "duplicated"):
        alone = FaultPlan(seed=4, **{kind: share})
        hits = {(w, t) for w in range(5) for t in range(n // 5) if alone.fate(w, t, 0) == kind}
        assert abs(len(hits) - share * n) < 4 * math.sqrt(n * share * (1 - share))
        several = replace(alone, lost=alone.lost or 0.01, crashed=0.1)
        assert {(w, t) for w in range(5) for t in range(n // 5) if several.fate(w, t, 0) in (kind, "lost")} >= hits
    slow = FaultPlan(seed=4, straggle=share, straggle_factor=3.0, stragglers={0: 2.0})
    found = [slow.compute_factor(0, t) for t in range(n)]
    assert set(found) == {2.0, 6.0}
    assert abs(found.count(6.0) - share * n) < 4 * math.sqrt(n * share * (1 - share))


def test_a_worker_is_down_for_as_many_rounds_as_a_crash_is_long_and_a_second_crash_begins_anew():
    crashes = tuple(Event(round=start, worker=1, kind="crashed") for start in (3, 10, 12))
    plan = FaultPlan(crash_rounds=4, events=crashes)
    assert [t for t in range(20) if plan.is_down(1, t)] == [3, 4, 5, 6, 10, 11, 12, 13, 14, 15]
    assert not any(plan.is_down(0, t) for t in range(20))


def test_long_crashes_by_chance_begin_as_often_as_short_ones_and_are_found_at_any_round():
    n, chance, length = 60_000, 0.002, 100
    plan = FaultPlan(crashed=chance, crash_rounds=length)
    down = [plan.is_down(0, t) for t in range(n)]
    assert down == [plan.is_down(0, t) for t in reversed(range(n))][::-1]
    share = 1 - (1 - chance) ** length
    assert abs(sum(down) / n - share) < 4 * math.sqrt(share * (1 - share) * 2 * length / n)
    begins = [t for t in range(1, n) if down[t] and not down[t - 1]]
    assert all(all(down[t : t + length]) for t in begins[:-1])
    rare = FaultPlan(crashed=1e-9, crash_rounds=10**6)
    late = [rare.is_down(worker, 10**15) for worker in range(20)]  # one draw a round would take minutes
    assert len(rare._blocks) <= 20 * (10**6 // 2**14 + 2)
    assert not all(late)
    assert not FaultPlan(crashed=5e-324, crash_rounds=100).is_down(0, 50)  # the gap to the next one overflows


def test_an_event_without_an_exchange_hits_all_of_its_round():
    at = {"round": 2, "worker": 0, "kind": "late"}
    one, full = FaultPlan(events=(Event(exchange=1, **at),)), FaultPlan(events=(Event(**at),))
    assert [one.fate(0, 2, exchange) for exchange in range(3)] == ["delivered", "late", "delivered"]
    assert [full.fate(0, 2, exchange) for exchange in range(3)] == ["late"] * 3
    assert full.fate(0, 1, 0) == full.fate(1, 2, 0) == "delivered"
