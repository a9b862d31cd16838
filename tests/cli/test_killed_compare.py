"""`laconic compare` that is killed, stopped or out of disk: no finished result is lost, and no second run mixed in.

`pytest -m nightly -s tests/cli/test_killed_compare.py` prints what remained after each end.
"""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from laconic.lab.runs.batch import Batch
from laconic.lab.runs.settings import RunSettings
from support.command_line import laconic
from support.deadlines import DEADLINE_S

METHODS = ("sgd", "signsgd-mv", "sasg")
EPOCHS = 4
SETTINGS = {"model": "linear", "batch_size": 50, "epochs": EPOCHS, "workers": 4}
COMMAND = (
    "compare", *METHODS, "--model", "linear", "--batch-size", "50", "--epochs", str(EPOCHS), "--workers", "4"
)  # fmt: skip


def show(line):
    sys.stdout.write(f"{line}\n")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The rows of an undisturbed comparison, by method."""
    batch = Batch([RunSettings(algorithm=name, **SETTINGS) for name in METHODS])
    batch.run(lambda progress: None)
    return {record.settings.algorithm: record.rows for record in batch.records}


@contextmanager
def comparison(out):
    """The command, running; its lines of progress can be read."""
    run = subprocess.Popen(
        [sys.executable, "-m", "laconic", *COMMAND, "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def epochs_read(run, n_lines):
    """The epochs that the command reports, until there are `n_lines` of them or it ends."""
    seen = []
    for line in run.stderr:
        if ": epoch " in line:
            seen.append(line.split(":")[0])
        if len(seen) >= n_lines:
            break
    return seen


def rows_in(folder):
    """The epochs in a folder's metrics.csv, and whether their figures are the expected ones."""
    path = folder / "metrics.csv"
    return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []


def state_of(out, expected):
    """How many epochs of each method are on disk, with a star if it is finished. Whatever is there must be right."""
    state = {}
    for name in METHODS:
        rows, finished = rows_in(out / name), (out / name / "summary.json").exists()
        for row, wanted in zip(rows, expected[name], strict=False):
            assert int(row["epoch"]) == wanted.epoch
            assert float(row["train_loss"]) == wanted.train_loss
            assert float(row["test_accuracy"]) == wanted.test_accuracy
        if finished:
            summary = json.loads((out / name / "summary.json").read_text())
            assert summary["settings"]["algorithm"] == name
            assert summary["test_accuracy"] == expected[name][-1].test_accuracy
            assert len(rows) == EPOCHS
        state[name] = f"{len(rows)}{'*' if finished else ''}"
    return state


def assert_nothing_is_lost(state, seen):
    """A method whose follower has reported is finished, and each epoch that was reported is on disk."""
    for name in METHODS:
        assert int(state[name].rstrip("*")) >= seen.count(name)
    for before, after in pairwise(METHODS):
        if after in seen:
            assert state[before].endswith("*")


def assert_continues(out, expected):
    """The same command is refused, and goes on with --resume to the figures of an undisturbed comparison."""
    again = laconic(*COMMAND, "--out", str(out))
    if any(name.suffix for name in out.rglob("*.*") if ".lock" not in name.name):
        assert again.code == 2
        assert "--overwrite replaces them" in again.err
        assert laconic(*COMMAND, "--out", str(out), "--resume").code == 0
    assert set(state_of(out, expected).values()) == {f"{EPOCHS}*"}
    assert not list(out.rglob("*.part"))
    assert not list(out.rglob("*.lock"))


def killed_after(out, expected, n_lines, wait_s):
    """Kill the command some time after its `n_lines`-th line, and return what remained."""
    with comparison(out) as run:
        seen = epochs_read(run, n_lines)
        end = time.monotonic() + wait_s
        while time.monotonic() < end and run.poll() is None:
            pass
        run.kill()
        seen += [line.split(":")[0] for line in run.communicate()[1].splitlines() if ": epoch " in line]
    state = state_of(out, expected)
    assert_nothing_is_lost(state, seen)
    assert_continues(out, expected)
    return state


@pytest.mark.slow
def test_a_killed_comparison_keeps_what_was_finished_and_is_continued(tmp_path, expected):
    killed_after(tmp_path / "out", expected, EPOCHS + 2, 0.0)


@pytest.mark.nightly
def test_a_comparison_that_is_killed_at_any_moment_keeps_what_was_finished_and_is_continued(tmp_path, expected):
    draw = random.Random(16)
    for number in range(10):
        n_lines, wait_s = draw.randrange(len(METHODS) * EPOCHS), draw.uniform(0, 0.05)
        state = killed_after(tmp_path / f"{number}", expected, n_lines, wait_s)
        show(f"SIGKILL {1000 * wait_s:.0f} ms after line {n_lines}: {state}")


@pytest.mark.nightly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_comparison_prints_the_table_of_what_is_finished_and_where_it_is(number, tmp_path, expected):
    out = tmp_path / "out"
    with comparison(out) as run:
        seen = epochs_read(run, EPOCHS + 2)
        run.send_signal(number)
        table, printed = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 128 + number
    assert [line.split()[0] for line in table.splitlines() if line.startswith(METHODS)] == ["sgd"]
    assert f"finished: sgd in {out / 'sgd'}; not finished: signsgd-mv (2 of 4 epochs" in printed.splitlines()[-1]
    assert "Traceback" not in printed
    state = state_of(out, expected)
    show(f"{signal.Signals(number).name}: {state}")
    assert_nothing_is_lost(state, seen)
    assert_continues(out, expected)


@pytest.fixture
def small_disk(tmp_path):
    """A file system that has room for half of the comparison."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = os.geteuid() == 0 and shutil.which("mount") is not None and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=28k", "none", str(folder)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not made:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.nightly
def test_a_full_disk_loses_nothing_that_is_finished_and_is_named(small_disk, expected):
    out = small_disk / "out"
    full = laconic(*COMMAND, "--out", str(out))
    assert full.code == 2
    assert [line.split()[0] for line in full.out.splitlines() if line.startswith(METHODS)] == list(METHODS)
    assert "could not be written: No space left on device" in full.err
    assert "Traceback" not in full.err
    state = state_of(out, expected)
    show(f"full disk: {state}")
    assert state["sgd"].endswith("*")
    assert not state["sasg"].endswith("*")
    assert laconic(*COMMAND, "--out", str(out), "--resume").code == 2
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    assert_continues(out, expected)
