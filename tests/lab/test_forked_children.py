"""Children are forked from a template that has imported everything, and are like fresh interpreters otherwise."""

import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from laconic.lab.processes.supervise import Child, end_all
from support.child_processes import children_of, has_ended, started, state_of, until
from support.process_samples import Sample

pytestmark = pytest.mark.slow
forks = pytest.mark.skipif(sys.platform != "linux", reason="on other systems each child is a fresh interpreter")


@forks
def test_a_child_finds_everything_imported_and_with_variables_of_its_own_it_is_fresh():
    with started(Sample) as forked:
        assert forked.call("has_imported", module="torch._dynamo")
        assert not forked.call("has_imported", module="support.preloaded")
    fresh = Child("fresh", Sample, environment={"OF_ITS_OWN": "1"})
    try:
        assert not fresh.call("has_imported", module="torch")
    finally:
        end_all([fresh])


@pytest.mark.parametrize("place", ["here", "there"])
def test_a_child_has_what_its_parent_has_when_it_starts(place, tmp_path, monkeypatch, capfd):
    """And no stale module of a user's: there is one of the same name at each place."""
    (tmp_path / "of_the_user.py").write_text(f"VALUE = {place!r}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", place)
    with started(Sample) as process:
        found = process.call("surroundings", variable="LOCAL_RANK", module="of_the_user")
    assert found == (str(tmp_path), place, place)
    assert capfd.readouterr() == ("to output\n", "to error\n")


def test_children_draw_different_random_numbers():
    numbers = []
    for _ in range(2):
        with started(Sample) as process:
            numbers.append(process.call("random_numbers"))
    assert all(one != other for one, other in zip(*numbers, strict=True))


@forks
def test_no_process_and_no_descriptor_is_left_but_those_of_one_template():
    found = []
    for _ in range(2):
        with started(Sample) as process:
            process.call("pid")
        found.append((children_of(os.getpid()), sorted(os.listdir("/proc/self/fd"))))
        assert state_of(process.pid)[0] == "X", "it is waited for"
    assert found[0] == found[1]


@forks
def test_where_the_template_is_killed_its_children_go_on_and_the_next_child_starts_all_the_same():
    with started(Sample) as process:
        process.call("pid")
        template = next(pid for pid in children_of(os.getpid()) if b"template" in command_line_of(pid)[-1:])
        os.kill(template, signal.SIGKILL)
        until(lambda: has_ended(template), "its end")
        with started(Sample) as another:
            assert another.call("pid") == another.pid
        assert process.call("pid") == process.pid


def command_line_of(pid):
    """The arguments of a process; those of a forked child are its template's."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")


@forks
def test_a_child_started_in_a_thread_is_forked_too_and_goes_on_after_it():
    with started(Sample), contextlib.ExitStack() as stack:
        with ThreadPoolExecutor(1) as pool:
            process = pool.submit(Child, "sample", Sample).result()
            stack.callback(end_all, [process])
        assert process.call("has_imported", module="torch._dynamo")
