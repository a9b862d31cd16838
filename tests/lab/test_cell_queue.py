"""Which cell is started next: the longest, and only where there is memory for it beside those that run."""

import os

import pytest

from laconic.lab.comparison.cell_queue import CellQueue
from laconic.lab.comparison.memory import available_bytes, highest_bytes, is_lack_of_memory, resident_bytes
from laconic.lab.processes.pool import PoolTask

TASKS = [PoolTask(label=label, work=print) for label in ("a 1", "a 2", "b 1", "b 2")]
KINDS = {task.label: task.label[0] for task in TASKS}
GB = 10**9


def queue_of(memory_bytes, **estimates):
    return CellQueue(KINDS, estimates, memory_bytes)


def start(queue, task):
    queue.started(task, os.getpid())  # a process that there is


def test_a_cell_waits_while_what_is_expected_of_it_does_not_fit_beside_those_that_run():
    here = 2 * (resident_bytes() or 0)  # this process, and the pages that a cell shares
    queue = queue_of(here + 5 * GB, a=3 * GB, b=1 * GB)
    start(queue, queue.choose(TASKS[:1]))
    assert queue.choose(TASKS[1:2]) is None, "two of 3 GB do not fit into 5"
    assert queue.choose(TASKS[1:]).label == "b 1", "one of 1 GB does"


def test_what_a_cell_has_taken_counts_more_than_what_was_estimated():
    here = 2 * (resident_bytes() or 0)
    queue = queue_of(here + 5 * GB, a=3 * GB)
    start(queue, TASKS[0])
    queue.ended("a 1", own_bytes=1 * GB)
    start(queue, TASKS[1])
    assert queue.choose(TASKS[:1]) is not None
    queue.ended("a 2", own_bytes=4 * GB)
    start(queue, TASKS[0])
    assert queue.choose(TASKS[1:2]) is None


def test_a_cell_is_always_started_if_none_runs_and_without_a_bound_all_are():
    assert queue_of(1, a=GB).choose(TASKS) is TASKS[0]
    queue = queue_of(None, a=1000 * GB)
    start(queue, TASKS[0])
    assert queue.choose(TASKS[1:]) is TASKS[1]


def test_kinds_that_are_not_known_come_before_those_that_took_long_and_these_before_the_short(monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("laconic.lab.comparison.cell_queue.time.monotonic", lambda: next(now))
    queue = queue_of(None)
    start(queue, TASKS[0])
    queue.ended("a 1", own_bytes=0)
    assert queue.choose([TASKS[1], TASKS[2]]) is TASKS[2], "nothing is known of it"
    start(queue, TASKS[2])
    for _ in range(3):
        next(now)
    queue.ended("b 1", own_bytes=0)
    assert queue.choose([TASKS[1], TASKS[3]]) is TASKS[3], "it takes longer"
    assert queue.seconds_left([], 2) == 0


def test_the_time_left_is_shared_by_those_that_run_at_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("laconic.lab.comparison.cell_queue.time.monotonic", lambda: clock[0])
    queue = queue_of(None)
    assert queue.seconds_left(["a 1"], 2) is None, "nothing is known"
    start(queue, TASKS[0])
    queue.progressed("a 1", 0.0)
    clock[0] = 30.0
    queue.progressed("a 1", 0.5)
    assert queue.seconds_left(["a 2", "b 1"], 1) == 30 + 60 + 60
    assert queue.seconds_left(["a 2", "b 1"], 2) == 75
    start(queue, TASKS[1])
    queue.progressed("a 2", 0.8)
    clock[0] = 40.0
    queue.progressed("a 1", 1.0)
    queue.progressed("a 2", 0.9)
    assert queue.seconds_left([], 1) == pytest.approx(10), "what another process has trained says nothing of the pace"


def test_memory_is_known_here_and_its_lack_is_recognized():
    assert 1e6 < resident_bytes() <= highest_bytes() + 1e7
    assert available_bytes() > 1e6
    assert resident_bytes(2**22 + 1) is None, "there is no such process"
    assert is_lack_of_memory(MemoryError())
    assert is_lack_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
    assert not is_lack_of_memory(RuntimeError("boom"))
