"""The virtual clock: whole nanoseconds, ties in order of creation, no time behind anybody's back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.network import Clock


def test_a_new_clock_reads_zero():
    assert Clock().now_ns == 0


def test_the_clock_moves_before_the_callback_runs():
    clock, seen = Clock(), []
    clock.at(5, lambda: seen.append(clock.now_ns))
    clock.run()
    assert seen == [5]


def test_ties_run_in_order_of_creation_even_when_created_by_another_callback():
    clock, seen = Clock(), []
    clock.at(7, lambda: (seen.append("first"), clock.at(7, lambda: seen.append("third"))))
    clock.at(7, lambda: seen.append("second"))
    clock.run()
    assert seen == ["first", "second", "third"]


def test_two_clocks_do_not_disturb_each_other():
    clock, other, seen = Clock(), Clock(), []
    clock.at(1, lambda: seen.append("a"))
    other.at(1, lambda: seen.append("other"))
    clock.at(1, lambda: seen.append("b"))
    clock.run()
    assert seen == ["a", "b"]
    assert other.now_ns == 0


def test_after_counts_from_the_callback_that_asks():
    clock, seen = Clock(), []
    clock.at(10, lambda: clock.after(3, lambda: seen.append(clock.now_ns)))
    clock.run()
    assert seen == [13]


def test_running_until_a_time_includes_it_and_leaves_the_rest():
    clock, seen = Clock(), []
    for time_ns in (1, 5, 6):
        clock.at(time_ns, lambda time_ns=time_ns: seen.append(time_ns))
    clock.run(until_ns=5)
    assert (seen, clock.now_ns) == ([1, 5], 5)
    clock.run()
    assert (seen, clock.now_ns) == ([1, 5, 6], 6)


def test_running_until_a_time_gets_there_even_when_nothing_is_left():
    clock = Clock()
    clock.at(5, lambda: None)
    clock.run(until_ns=100)
    assert clock.now_ns == 100


def test_running_with_nothing_pending_leaves_the_clock_where_it_is():
    clock = Clock()
    clock.run(until_ns=9)
    clock.run()
    assert clock.now_ns == 9


def test_the_past_is_refused_with_both_times_and_nothing_is_scheduled():
    clock, seen = Clock(), []
    clock.run(until_ns=10)
    with pytest.raises(ValueError, match=r"time_ns=9 must not be before now_ns=10"):
        clock.at(9, lambda: seen.append("never"))
    with pytest.raises(ValueError, match=r"delay_ns=-1 .* time 9 ns is before now_ns=10"):
        clock.after(-1, lambda: seen.append("never"))
    with pytest.raises(ValueError, match=r"until_ns=9 must not be before now_ns=10"):
        clock.run(until_ns=9)
    clock.run()
    assert seen == []


@pytest.mark.parametrize("value", [1.0, 0.5, float("nan"), "1"])
def test_a_time_that_is_not_an_integer_is_refused(value):
    clock = Clock()
    with pytest.raises(TypeError, match=r"Clock\.at: time_ns=.* must be a whole number of nanoseconds"):
        clock.at(value, lambda: None)
    with pytest.raises(TypeError, match=r"Clock\.after: delay_ns=.* must be a whole number"):
        clock.after(value, lambda: None)
    with pytest.raises(TypeError, match=r"Clock\.run: until_ns=.* must be a whole number"):
        clock.run(until_ns=value)


def test_an_exception_stops_the_run_at_its_time_and_the_rest_stays_pending():
    clock, seen = Clock(), []

    def fail():
        raise RuntimeError("worker 3 broke")

    clock.at(1, lambda: seen.append(1))
    clock.at(2, fail)
    clock.at(3, lambda: seen.append(3))
    with pytest.raises(RuntimeError, match="worker 3 broke"):
        clock.run(until_ns=10)
    assert (seen, clock.now_ns) == ([1], 2)
    clock.run()
    assert (seen, clock.now_ns) == ([1, 3], 3)


@given(st.lists(st.integers(0, 5), max_size=40))
def test_order_is_by_time_then_by_creation_and_time_never_goes_back(times_ns):
    clock, seen = Clock(), []
    for serial, time_ns in enumerate(times_ns):
        clock.at(time_ns, lambda serial=serial: seen.append((clock.now_ns, serial)))
    clock.run()
    assert seen == sorted((time_ns, serial) for serial, time_ns in enumerate(times_ns))


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 6), max_size=5).map(sorted))
def test_running_in_several_calls_is_running_in_one(times_ns, stops_ns):
    def run(stops):
        clock, seen = Clock(), []
        for serial, time_ns in enumerate(times_ns):
            clock.at(time_ns, lambda serial=serial: seen.append((clock.now_ns, serial)))
        for stop in stops:
            clock.run(until_ns=stop)
        clock.run()
        return seen

    assert run(stops_ns) == run([])
