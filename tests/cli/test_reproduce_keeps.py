"""`laconic reproduce` keeps each finished task, and goes on from them."""

import json
import signal
from dataclasses import dataclass
from typing import ClassVar

import pytest

from laconic.lab.processes.pool import PoolTask
from laconic.reproduce import TABLES
from laconic.reproduce.table import PublishedTable, SideBySide
from support import pool_tasks
from support.command_line import laconic
from support.process_samples import figures_of, stops_its_parent

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class OfJobs(PublishedTable):
    """A table of given jobs."""

    name: ClassVar[str] = "of-jobs"
    title: ClassVar[str] = "for a test"
    source: ClassVar[str] = "none"
    given: tuple[PoolTask, ...]

    def settings(self):
        return {}

    @property
    def printed(self):
        return {}

    def tasks(self, request):
        return list(self.given)

    def compare(self, found):
        return SideBySide(sheets=())


def test_what_a_stopped_table_has_finished_is_on_disk_until_all_is(monkeypatch, tmp_path):
    good, last = PoolTask(label="good", work=figures_of), PoolTask(label="last", work=stops_its_parent)
    result, partial = tmp_path / "result.json", tmp_path / "result.partial"
    arguments = ("reproduce", "of-jobs", "--jobs", "1", "--out", str(result))
    monkeypatch.setitem(TABLES, "of-jobs", OfJobs(given=(good, last)))
    ended = laconic(*arguments)
    assert ended.code == 128 + signal.SIGTERM
    assert ended.err.splitlines()[-1] == (
        f"stopped by SIGTERM; finished, in {partial}: good; not finished: last; the same command with --resume goes on "
        "from there"
    )
    assert "none" in ended.out, "the table of what is finished"
    assert not result.exists()
    assert json.loads((partial / "good" / "summary.json").read_text())["figures"] == {"figure": 1.5}
    ended = laconic(*arguments)
    assert ended.code == 2
    assert "--resume goes on from there, --overwrite begins anew" in ended.err
    again = PoolTask(label="good", work=stops_its_parent)  # which is finished, so that it is not run
    monkeypatch.setitem(TABLES, "of-jobs", OfJobs(given=(again,)))
    assert laconic(*arguments, "--resume").code == 0
    assert json.loads(result.read_text())["found"] == [{"figure": 1.5}]
    assert not partial.exists()


def test_a_task_that_fails_does_not_lose_the_others_which_are_taken_up_with_equal_settings_alone(monkeypatch, tmp_path):
    result, number = tmp_path / "result.json", {"number": 2}
    arguments = ("reproduce", "of-jobs", "--jobs", "1", "--out", str(result))
    tasks = [
        PoolTask(label="bad", work=pool_tasks.broken),
        PoolTask(label="good", work=pool_tasks.doubled, arguments=number),
    ]
    monkeypatch.setitem(TABLES, "of-jobs", OfJobs(given=tuple(tasks)))
    ended = laconic(*arguments)
    assert ended.code == 2
    assert "error: bad: ArithmeticError: nothing adds up" in ended.err
    assert "not finished: bad" in ended.err
    assert "Traceback" not in ended.err
    assert not result.exists()
    other = PoolTask(label="good", work=pool_tasks.doubled, arguments={"number": 3})
    monkeypatch.setitem(TABLES, "of-jobs", OfJobs(given=(other,)))
    ended = laconic(*arguments, "--resume")
    assert ended.code == 2
    assert "was made with another number: 2 there, 3 now" in ended.err
    assert laconic(*arguments, "--overwrite").code == 0
    assert json.loads(result.read_text())["found"] == [{"twice": 6}]
