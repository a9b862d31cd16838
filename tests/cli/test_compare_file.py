"""`laconic compare FILE.toml`: a table with mean and spread, exit codes, and going on after whatever ended it.

`pytest -m nightly -s tests/cli/test_compare_file.py` prints what was finished at each of ten kills.
"""

import csv
import json
import os
import random
import subprocess
import sys
import tomllib
from contextlib import contextmanager

import pytest

from laconic.cli.compare_options import CompareOptions
from laconic.cli.launch_options import LaunchOptions
from laconic.contract import ALGORITHMS
from laconic.lab.comparison.plan_file import TYPED_ONLY
from laconic.lab.options import options_of
from support.command_line import laconic
from support.deadlines import DEADLINE_S

pytestmark = pytest.mark.slow

TEXT = """
algorithms = ["sgd", {algorithm = "ssgd-mv", as = "mv-5%", set = {density = 0.05}}]
seeds = [0, 1, 2]
model = "linear"
workers = 2
batch_size = 100
epochs = 3

[networks.home]
bandwidth = "1Mbit"
"""
FAILING = '''
from dataclasses import dataclass
import laconic

@laconic.algorithm("late")
@dataclass(frozen=True, kw_only=True)
class Late(laconic.SGD):
    """Fails in its second round."""

    def work(self, me):
        if me.round == 1:
            raise RuntimeError("boom")
        return (yield from super().work(me))
'''


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TEXT)
    return str(path)


def cells_in(out):
    return {cell["folder"]: cell for cell in json.loads((out / "comparison.json").read_text())["cells"]}


def result_files(out):
    """What a comparison leaves, without the times and the memory that it took."""
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.glob("cells/**/*") if path.is_file()}
    about = json.loads((out / "comparison.json").read_text())
    for each in (about, *about["cells"]):
        for name in ("seconds", "peak_memory_bytes", "command"):
            each.pop(name, None)
    return files | {"comparison.json": about, "comparison.toml": (out / "comparison.toml").read_bytes()}


def test_a_file_is_compared_with_mean_and_deviation_over_its_seeds(file, tmp_path):
    out = tmp_path / "out"
    ended = laconic("compare", file, "--out", str(out), "--json", str(tmp_path / "all.json"))
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if line.startswith(("sgd", "mv-5%"))]
    assert [line.split()[-1] for line in lines] == ["3", "3"], "seeds in each mean"
    assert all("±" in line for line in lines)
    assert "Peak memory of all processes together" in ended.out
    states = [line.split(": ")[1].split(",")[0] for line in ended.err.splitlines()]
    assert sorted(states) == ["begins"] * 6 + ["finished"] * 6
    cells = cells_in(out)
    assert len(cells) == 6
    for folder, cell in cells.items():
        assert folder == f"cells/{cell['label']}/home/resample/seed-{cell['seed']}"
        config = tomllib.loads((out / folder / "config.toml").read_text())
        assert (config["algorithm"], config["bandwidth"]) == (cell["algorithm"], "1Mbit")
    figures = json.loads((tmp_path / "all.json").read_text())["runs"]
    accuracies = [run["test_accuracy"] for run in figures if run["options"]["algorithm"] == "sgd"]
    assert f"{100 * sum(accuracies) / 3:.2f} ±" in lines[0]


def test_finished_cells_are_not_run_again_and_old_results_need_a_word(file, tmp_path):
    out = tmp_path / "out"
    fewer = laconic("compare", file, "--seeds", "1", "--out", str(out))
    assert fewer.code == 0, fewer.err
    done = {folder: cell for folder, cell in cells_in(out).items() if cell["state"] == "finished"}
    assert len(done) == 2
    refused = laconic("compare", file, "--out", str(out))
    assert refused.code == 2
    assert "--overwrite replaces them" in refused.err
    again = laconic("compare", file, "--out", str(out), "--resume")
    assert again.code == 0
    assert "2 of 6 cells are finished; they are not run again" in again.err
    cells = cells_in(out)
    assert len(cells) == 6
    assert {folder: cells[folder] for folder in done} == done, "with the seconds of the first time"
    other = laconic("compare", file, "--out", str(out), "--resume", "--epochs", "2")
    assert other.code == 2
    assert "made with another epochs: 3 there, 2 now" in other.err
    anew = laconic("compare", "sgd", "--seeds", "5,6", *TINY, "--out", str(out), "--overwrite")
    assert anew.code == 0, anew.err
    assert list(cells_in(out)) == ["cells/sgd/-/resample/seed-5", "cells/sgd/-/resample/seed-6"]
    assert sorted(path.name for path in (out / "cells").iterdir()) == ["sgd"]


@pytest.mark.nightly
def test_results_of_one_kind_are_not_continued_by_the_other(file, tmp_path):
    out, words = str(tmp_path / "out"), ("--epochs", "1", "--model", "linear", "--batch-size", "700", "--workers", "2")
    assert laconic("compare", "sgd", *words, "--out", out).code == 0
    refused = laconic("compare", file, "--out", out, "--resume")
    assert "holds runs of other commands (sgd) and no comparison over seeds" in refused.err
    assert laconic("compare", "sgd", "--seeds", "1", *words, "--out", out, "--overwrite").code == 0
    refused = laconic("compare", "sgd", *words, "--out", out, "--resume")
    assert "holds a comparison over seeds, networks or partitions; give another folder" in refused.err


TINY = ("--model", "linear", "--workers", "2", "--batch-size", "300", "--epochs", "1")


def test_methods_seeds_and_variants_are_compared_by_flags_too():
    options = CompareOptions(
        algorithms=("ssgd-mv",), as_={"dense": "ssgd-mv"}, set={"dense.density": "0.5"}, seeds="3,4",
        lr_of={"dense": "0.2", "ssgd-mv": "theory"},
    )  # fmt: skip
    cells = {cell.folder: cell.settings for cell in options.asked({"epochs": 1}).comparison().cells()}
    assert list(cells) == [f"cells/{label}/-/resample/seed-{seed}" for label in ("ssgd-mv", "dense") for seed in (3, 4)]
    dense, usual = cells["cells/dense/-/resample/seed-4"], cells["cells/ssgd-mv/-/resample/seed-4"]
    assert (dense.set, dense.lr, dense.seed, dense.epochs) == ({"density": "0.5"}, 0.2, 4, 1)
    assert (usual.set, usual.lr) == ({}, "theory")


def test_a_cell_that_fails_or_diverges_is_named_and_the_exit_code_says_so(tmp_path):
    (tmp_path / "late.py").write_text(FAILING)
    out = tmp_path / "out"
    try:
        ended = laconic(
            "compare", "sgd", "late", "--seeds", "0,1", *TINY, "--out", str(out), "--load", str(tmp_path / "late.py")
        )
    finally:
        ALGORITHMS.pop("late", None)
    assert ended.code == 2
    assert "error: late, resample, seed 0: RuntimeError: boom (" in ended.err
    assert [line.split()[0] for line in ended.out.splitlines() if line.startswith("sgd")] == ["sgd"]
    assert "2 failed" in ended.out
    assert [cell["state"] for cell in cells_in(out).values()] == ["finished", "finished", "failed", "failed"]
    wild = laconic("compare", "sgd", "--seeds", "0,1", "--lr", "1e38", *TINY[:-1], "2", "--out", f"{out}2")
    assert (wild.code, "2 diverged" in wild.out) == (3, True), wild.err


WRONG = {
    "a file that is not there": (("no.toml",), "no.toml is not there", "experiments/quick.toml"),
    "a method beside a file": (("{file}", "sgd"), "name no methods beside it: sgd"),
    "two files": (("{file}", "--config", "empty.toml"), "two files of options; give one"),
    "one seed": (("{file}", "--seed", "3"), "--seed 3 is not for a comparison over seeds: give --seeds"),
    "processes": (("{file}", "--driver", "processes"), "it runs in the simulator"),
    "no seeds": (("sgd", "--seeds", "one"), "--seeds 'one' must be whole numbers"),
    "a saved run": (("{file}", "--save-every", "1", "--out", "x"), "--save-every 1 is not for a comparison"),
    "no size": (("sgd", "--memory", "much"), "--memory: size 'much' must be a number and a unit"),
    "a label of nothing": (("sgd", "--as", "mine=sdg"), "did you mean sgd"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_call_is_refused_in_one_line(what, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.toml").touch()
    words, *wanted = WRONG[what]
    ended = laconic("compare", *(word.format(file=file) for word in words))
    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert not [text for text in wanted if text not in ended.err], ended.err
    assert sorted(os.listdir(tmp_path)) == ["empty.toml", "mine.toml"]


def test_what_a_file_may_not_say_since_it_is_typed_is_an_option_of_the_command():
    groups = (CompareOptions, LaunchOptions)
    assert {*TYPED_ONLY} <= {field.name for group in groups for field, _ in options_of(group)}


def test_what_the_data_refuse_is_named_with_the_file_and_the_line(file, tmp_path):
    text = TEXT.replace("batch_size = 100", "batch_size = 9999")
    (tmp_path / "mine.toml").write_text(text)
    ended = laconic("compare", file, "--out", str(tmp_path / "out"))
    line = text.splitlines().index("batch_size = 9999") + 1
    assert ended.code == 2
    assert ended.err.startswith(f"error: {file}, line {line}: batch_size = 9999 is too large: ")
    assert ended.err.endswith("(of sgd, home, resample, seed 0)\n")


@contextmanager
def running(file, out, *more):
    """The command in a process of its own; its lines of progress can be read."""
    run = subprocess.Popen(
        [sys.executable, "-m", "laconic", "compare", file, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield run
    finally:
        run.kill()
        run.communicate(timeout=DEADLINE_S)


@pytest.mark.nightly
def test_a_comparison_killed_at_ten_random_moments_gives_the_files_of_an_undisturbed_one(file, tmp_path):
    longer = ("--epochs", "8", "--seeds", "0,1,2,3,4,5,6,7,8,9")
    undisturbed = tmp_path / "undisturbed"
    assert laconic("compare", file, "--out", str(undisturbed), *longer).code == 0
    out, draw = tmp_path / "out", random.Random(17)
    finished = 0
    for number in range(10):
        n_changes = draw.randrange(40)
        with running(file, out, *longer, *(["--resume"] if number else [])) as run:
            wait_for_changes(out, n_changes, run)
            assert run.poll() is None, "it is killed before its end"
            run.kill()
        noted = [cell["state"] for cell in cells_in(out).values()] if (out / "comparison.json").exists() else []
        on_disk = len(list(out.glob("cells/**/summary.json")))
        states = f"{noted.count('finished')} of 20 cells noted, {on_disk} on disk"
        sys.stdout.write(f"SIGKILL after {n_changes} more changes on disk: {states}\n")
        assert on_disk >= finished, "nothing that is finished is lost"
        finished = on_disk
    ended = laconic("compare", file, "--out", str(out), "--resume", *longer)
    assert ended.code == 0, ended.err
    assert result_files(out) == result_files(undisturbed)


def wait_for_changes(out, n_changes, run):
    """Wait until what is on disk has changed so many times, or the command ends."""
    before, seen = -1, 0
    while seen < n_changes and run.poll() is None:
        now = sum(map(size_of, out.glob("cells/**/*.csv")))
        seen += now != before
        before = now


def size_of(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a cell that begins anew has removed it
        return 0


@pytest.mark.nightly
def test_the_quick_experiment_ends_with_every_method_trained_on_every_seed(tmp_path):
    out = tmp_path / "quick"
    ended = laconic("compare", "experiments/quick.toml", "--out", str(out))
    assert ended.code == 0, ended.err
    cells = cells_in(out).values()
    assert len(cells) == 18
    for cell in cells:
        with (out / cell["folder"] / "metrics.csv").open(newline="") as stream:
            last = list(csv.DictReader(stream))[-1]
        assert float(last["test_accuracy"]) > 0.8, cell["folder"]
