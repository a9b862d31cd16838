"""The rule of bounded staleness, apart from tensors and clocks."""

import heapq

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from laconic.contract import StalenessBound, UpdateOutcome
from support.inputs import over_inputs


def played(bound: StalenessBound, n: int, n_updates: int, time_of) -> list[UpdateOutcome]:
    """Run workers that compute for time_of(worker, step) and get the model at once. Fails if all of them wait."""
    expected: list[tuple[float, int]] = []
    steps = [0] * n
    outcomes: list[UpdateOutcome] = []

    def release(now: float) -> None:
        for worker in bound.admit():
            bound.take(worker)
            heapq.heappush(expected, (now + time_of(worker, steps[worker]), worker))
            steps[worker] += 1

    for worker in range(n):
        bound.request(worker)
    release(0.0)
    while len(outcomes) < n_updates:
        assert expected, f"all wait: {bound.requesting} for the model, {bound.held} for others"
        now, worker = heapq.heappop(expected)
        for each in bound.arrive(worker):
            outcomes.append(each)
            bound.request(each.worker)
        release(now)
    return outcomes


times = st.lists(st.sampled_from((0.1, 1.0, 1.5, 3.0, 40.0)), min_size=1, max_size=60)


@given(n=st.integers(1, 8), tau=st.sampled_from((0, 1, 2, 5, 7, 20)), law=times)
@example(n=8, tau=2, law=[1.0, 40.0, 0.1])
def test_no_worker_waits_for_ever_and_no_gradient_is_older_than_the_bound(n, tau, law):
    bound = StalenessBound(tau)
    outcomes = played(bound, n, 80, lambda worker, step: law[(7 * worker + 3 * step) % len(law)])
    ages = [each.staleness for each in outcomes]
    assert all(each.outcome == "applied" for each in outcomes)
    assert max(ages) <= tau
    assert bound.version == len(ages)
    if n == 1:
        assert set(ages) == {0}


@over_inputs("n", (3, 8))
@over_inputs("tau", (0, 1, 2, 5, 7, 20))
def test_the_bound_is_reached_where_one_worker_is_slow(n, tau):
    outcomes = played(StalenessBound(tau), n, 400, lambda worker, step: 60.0 if worker == 0 else 1.0)
    assert max(each.staleness for each in outcomes) == tau


def test_without_a_bound_a_slow_worker_is_as_stale_as_it_gets():
    outcomes = played(StalenessBound(None), 3, 200, lambda worker, step: 50.5 if worker == 0 else 1.0)
    assert [each.staleness for each in outcomes if each.worker == 0] == [100]


@given(n=st.integers(1, 6), law=times)
def test_a_bound_of_zero_lets_one_worker_compute_at_a_time(n, law):
    bound = StalenessBound(0)
    for worker in range(n):
        bound.request(worker)
    turns = []
    for step in range(12):
        (worker,) = bound.admit()
        bound.take(worker)
        assert bound.admit() == []
        assert bound.arrive(worker) == [UpdateOutcome(worker, 0)]
        bound.request(worker)
        turns.append(worker)
        assert bound.version == step + 1
    assert turns == [step % n for step in range(12)]


def test_a_gradient_that_would_make_an_older_one_too_old_waits_for_it():
    bound = StalenessBound(1)
    for worker in (0, 1):
        bound.request(worker)
    for worker in bound.admit():
        bound.take(worker)
    assert bound.arrive(1) == [UpdateOutcome(1, 0)]
    bound.request(1)
    assert bound.admit() == [1]
    bound.take(1)
    assert bound.arrive(1) == [], "worker 0's model would be two updates old"
    assert bound.held == (1,)
    assert bound.arrive(0) == [UpdateOutcome(0, 1), UpdateOutcome(1, 1, waited=True)]
    assert bound.held == bound.outstanding == ()


def test_held_gradients_are_applied_as_soon_as_the_oldest_has_arrived():
    bound = StalenessBound(2)
    for worker in (0, 1, 2):
        bound.request(worker)
    earliest, second, third = bound.admit()
    bound.take(earliest)
    assert bound.arrive(earliest) == [UpdateOutcome(0, 0)]
    bound.request(earliest)
    assert bound.admit() == [0], "models not yet taken will be of the newest version"
    bound.take(second)
    bound.take(earliest)
    bound.take(third)
    assert bound.arrive(third) == [UpdateOutcome(2, 0)]
    assert bound.arrive(earliest) == [UpdateOutcome(0, 1)]
    assert bound.arrive(second) == [UpdateOutcome(1, 2)]


def test_dropping_makes_no_worker_wait_and_drops_gradients_that_are_too_old():
    bound = StalenessBound(1, "drop")
    outcomes = played(bound, 3, 60, lambda worker, step: 5.5 if worker == 0 else 1.0)
    assert {each.outcome for each in outcomes if each.worker == 0} == {"dropped"}
    assert {each.outcome for each in outcomes if each.worker != 0} == {"applied"}
    assert bound.version == sum(each.outcome == "applied" for each in outcomes)
    assert not bound.may_wait


def test_an_aborted_gradient_is_no_update_and_no_longer_an_obstacle():
    bound = StalenessBound(1)
    for worker in (0, 1):
        bound.request(worker)
    for worker in bound.admit():
        bound.take(worker)
    assert bound.arrive(1) == [UpdateOutcome(1, 0)]
    bound.request(1)
    for worker in bound.admit():
        bound.take(worker)
    assert bound.arrive(1) == []
    assert bound.arrive(0, aborted=True) == [UpdateOutcome(0, 1, "aborted"), UpdateOutcome(1, 0, waited=True)]
    assert bound.version == 2


def test_a_negative_bound_is_refused():
    with pytest.raises(ValueError, match="max_staleness=-1 must be at least 0, or None for no bound"):
        StalenessBound(-1)


def test_a_worker_that_leaves_is_waited_for_by_nobody():
    bound = StalenessBound(0)
    for worker in (0, 1):
        bound.request(worker)
    assert bound.admit() == [0]
    bound.take(0)
    assert bound.forget(0) == []
    assert bound.admit() == [1]
    bound.take(1)
    assert [each.outcome for each in bound.arrive(1)] == ["applied"]
    assert bound.outstanding == ()


def test_a_gradient_that_waits_for_a_worker_that_leaves_is_applied():
    bound = StalenessBound(1)
    for worker in (0, 1):
        bound.request(worker)
    for worker in bound.admit():
        bound.take(worker)
    assert [each.worker for each in bound.arrive(1)] == [1]
    bound.request(1)
    assert bound.admit() == [1]
    bound.take(1)
    assert bound.arrive(1) == []
    assert bound.forget(0) == [UpdateOutcome(1, 0, waited=True)]
    assert bound.held == ()
