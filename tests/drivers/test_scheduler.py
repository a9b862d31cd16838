"""Lanes of a scheduler: one goes on while another waits, one computes at a time, and calls wait for all of them."""

from threading import Event

import pytest

from laconic.drivers.scheduler import Scheduler
from support.deadlines import PATIENCE_S


class Waiting:
    """A transport whose `gather` waits until others have done something."""

    rank, size, link_bytes_per_s, control_bytes = 0, 1, None, 0

    def __init__(self):
        self.asked, self.answered = Event(), Event()

    def gather(self, value, purpose, schema, max_bytes):
        self.asked.set()
        assert self.answered.wait(PATIENCE_S)
        return [value]


@pytest.fixture
def lanes():
    waiting = Waiting(), Waiting()
    scheduler = Scheduler(*waiting)
    yield scheduler, *waiting
    for one in waiting:
        one.answered.set()
    scheduler.close()


def asking(seen, name):
    def ask(lane):
        seen.append(f"{name} asks")
        lane.gather(name, "to see", str, 10)
        seen.append(f"{name} goes on")

    return ask


def test_a_lane_goes_on_while_another_waits_and_a_call_waits_for_both(lanes):
    scheduler, even, odd = lanes
    seen = []
    started = [scheduler.run(asking(seen, str(number)), number) for number in range(2)]
    called = scheduler.call(lambda: seen.append("called"))
    after = scheduler.run(lambda lane: seen.append("after"), 3)
    assert even.asked.wait(PATIENCE_S)
    assert odd.asked.wait(PATIENCE_S)  # though the other one has had no answer
    odd.answered.set()
    started[1].result(PATIENCE_S)
    assert sorted(seen[:2]) == ["0 asks", "1 asks"]
    assert seen[2:] == ["1 goes on"]
    even.answered.set()
    for each in (*started, called, after):
        each.result(PATIENCE_S)
    assert seen[3:] == ["0 goes on", "called", "after"]


def test_only_one_lane_computes_at_a_time(lanes):
    scheduler, even, _ = lanes
    seen = []

    def compute(lane):
        seen.append("computes")
        even.answered.set()  # from here the other lane could go on
        for _ in range(10_000):
            len(seen)
        seen.append("has computed")

    waits = scheduler.run(asking(seen, "0"), 0)
    assert even.asked.wait(PATIENCE_S)
    scheduler.run(compute, 1).result(PATIENCE_S)
    waits.result(PATIENCE_S)
    assert seen == ["0 asks", "computes", "has computed", "0 goes on"]


def test_what_a_lane_raises_is_the_callers_and_the_next_round_goes_on(lanes):
    scheduler, *_ = lanes
    failed = scheduler.run(lambda lane: [][0], 0)
    assert scheduler.run(lambda lane: lane.rank, 0).result(PATIENCE_S) == 0
    with pytest.raises(IndexError):
        failed.result(PATIENCE_S)
