"""A fault plan as data: read and written, what is refused, and how often things happen."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import laconic
from laconic.contract import ModelSpec
from laconic.drivers.simulated.rounds import Simulated
from laconic.faults.plan import KINDS, Event, FaultPlan
from support import methods

chances = st.floats(0, 1, exclude_max=True)
factors = st.floats(1e-6, 1e6)
by_worker = st.dictionaries(st.integers(0, 7), factors, max_size=3)
events = st.builds(
    Event, round=st.integers(0, 99), worker=st.integers(0, 7), kind=st.sampled_from(KINDS[:4]),
    exchange=st.none() | st.integers(0, 2),
) | st.builds(Event, round=st.integers(0, 99), worker=st.integers(0, 7), kind=st.just("crashed"))  # fmt: skip
plans = st.builds(
    FaultPlan, seed=st.integers(0, 2**63 - 1), lost=chances, late=chances, duplicated=chances, corrupted=chances,
    crashed=chances, crash_rounds=st.integers(1, 9), straggle=chances, straggle_factor=factors,
    inverted_links=st.integers(0, 3), stragglers=by_worker, slow_links=by_worker,
    rescale=st.none() | st.tuples(factors, factors).map(lambda pair: tuple(sorted(pair))),
    events=st.lists(events, max_size=3).map(tuple),
)  # fmt: skip


@settings(deadline=None)
@given(plans)
def test_a_plan_written_and_read_again_is_the_same(plan):
    assert FaultPlan.from_toml(plan.to_toml()) == plan


def test_a_plan_with_all_fields_reads_as_documented():
    text = """
        seed = 7
        lost = 0.05
        crashed = 0.01
        crash_rounds = 3
        rescale = [0.001, 1000]
        stragglers = { 2 = 4.0 }
        [slow_links]
        1 = 0.1
        [[event]]
        round = 3
        worker = 1
        kind = "lost"
        exchange = 0
    """
    event = Event(round=3, worker=1, kind="lost", exchange=0)
    assert FaultPlan.from_toml(text) == FaultPlan(
        seed=7, lost=0.05, crashed=0.01, crash_rounds=3, rescale=(0.001, 1000), stragglers={2: 4.0},
        slow_links={1: 0.1}, events=(event,),
    )  # fmt: skip
    assert FaultPlan.from_toml("") == FaultPlan()


EVENT = "[[event]]\nround = 0\nworker = 0\n"
WRONG = {
    "no TOML": ("lost = ", "faults: not TOML: Invalid value"),
    "an unknown key": ("losst = 0.1", "faults: unknown key 'losst'; known: seed, lost, .*; did you mean lost"),
    "a chance of one": ("lost = 1.0", r"faults: lost=1.0 must be in \[0, 1\)"),
    "a chance below zero": ("crashed = -0.1", r"faults: crashed=-0.1 must be in \[0, 1\)"),
    "no number": ("late = 'often'", "faults: late='often' must be a number"),
    "a chance that is a boolean": ("late = true", "faults: late=True must be a number"),
    "not a number": ("straggle = nan", r"straggle=nan must be in \[0, 1\)"),
    "no rounds": ("crash_rounds = 0", "crash_rounds=0 must be at least 1"),
    "half a round": ("crash_rounds = 1.5", "crash_rounds=1.5 must be a whole number"),
    "a seed below zero": ("seed = -1", "seed=-1 must be at least 0"),
    "links below zero": ("inverted_links = -1", "inverted_links=-1 must be at least 0"),
    "a factor of zero": ("[stragglers]\n2 = 0.0", "stragglers: the factor of worker 2=0.0 must be above 0 and finite"),
    "an endless factor": ("[slow_links]\n0 = inf", "slow_links: the factor of worker 0=inf must be above 0"),
    "a worker of no number": ("[slow_links]\none = 1.0", "slow_links: worker 'one' must be a whole number"),
    "a worker below zero": ("[slow_links]\n-1 = 1.0", "slow_links: worker '-1' must be a whole number of at least 0"),
    "no table": ("stragglers = 3", "stragglers=3 must be a table of factors by worker"),
    "one factor": ("rescale = 3.0", "rescale=3.0 must be two factors"),
    "factors the wrong way round": ("rescale = [2.0, 1.0]", "must be the lowest factor and then the highest"),
    "a factor below zero": ("rescale = [-1.0, 1.0]", "rescale: the lowest factor=-1.0 must be above 0"),
    "an unknown kind": (EVENT + "kind = 'lots'", "kind='lots' must be one of .*; did you mean lost"),
    "a kind that is a number": (EVENT + "kind = 3", "kind=3 must be one of"),
    "an event's unknown key": (EVENT + "kind = 'lost'\nexchnge = 0", "unknown key 'exchnge'.*did you mean exchange"),
    "an event without a kind": (EVENT, "an event has no kind; it needs round, worker and kind"),
    "an event before all rounds": ("[[event]]\nround = -1\nworker = 0\nkind = 'lost'", "round=-1 must be at least 0"),
    "an event of no worker": ("[[event]]\nround = 1\nworker = -2\nkind = 'lost'", "worker=-2 must be at least 0"),
    "a crash within a round": (EVENT + "kind = 'crashed'\nexchange = 1", "exchange=1 does not go with kind='crashed'"),
    "events that are no tables": ("event = 3", r"events are written as \[\[event\]\] tables"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_plan_is_refused_with_the_name_the_value_and_the_bound(case):
    text, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        FaultPlan.from_toml(text)


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
