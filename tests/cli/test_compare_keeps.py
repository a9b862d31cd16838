"""What `laconic run` and `laconic compare` write: never over other results, while they work, and whatever happens."""

import csv
import json
import os
import tomllib

import pytest

from laconic.contract import ALGORITHMS
from laconic.lab.outputs import output_folder
from laconic.lab.runs.batch import Batch
from laconic.lab.runs.files import METRICS, RunFiles, read_record, write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from support.command_line import laconic

TINY = ("--model", "linear", "--batch-size", "300", "--epochs", "2", "--workers", "2")
SETTINGS = {"model": "linear", "batch_size": 300, "epochs": 2, "workers": 2}

FAILING = '''
from dataclasses import dataclass
import laconic

@laconic.algorithm("late")
@dataclass(frozen=True, kw_only=True)
class Late(laconic.SGD):
    """Fails in its second epoch."""

    def work(self, me):
        if me.round > 2:
            raise RuntimeError("boom")
        return (yield from super().work(me))
'''


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def plan(name="sgd", **options):
    return RunSettings(algorithm=name, **(SETTINGS | options))


def nothing(progress):
    pass


@pytest.fixture
def late(tmp_path):
    """A file with a method that fails, which leaves the registry with the test."""
    file = tmp_path / "late.py"
    file.write_text(FAILING)
    yield str(file)
    ALGORITHMS.pop("late", None)


CONFIG = """algorithm = "sgd"
workers = 1
driver = "simulated"
layout = "auto"
seed = 0
faults = "plan.toml"
"""


HELD = {
        "config.toml": CONFIG,
        "faults.toml": "# of an earlier run", "metrics.csv": "epoch,round,train_loss,test_accuracy\n",
        "summary.json": '{"settings": {"algorithm": "sgd"}}', "times.csv": "rank,round,what,start_s,end_s\n",
}  # fmt: skip


@pytest.fixture
def held(tmp_path):
    """A folder with the results of an earlier run."""
    folder = tmp_path / "held"
    folder.mkdir()
    for name, text in HELD.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("command", [("run", "-a", "sgd"), ("compare", "sgd", "signsgd-mv")])
def test_a_folder_that_cannot_hold_the_results_is_refused_before_the_work(command, tmp_path, held):
    (tmp_path / "taken").touch()
    for options, words in (
        (("--out", str(tmp_path / "taken")), "is a file"),
        (("--out", "/proc/x"), "--out /proc/x cannot be written: No such file or directory"),
        (("--out", str(tmp_path / "taken" / "below")), "taken is not a folder"),
        (("--out", str(held)), "--overwrite replaces them"),
        (("--out", str(held), "--overwrite", "--resume"), "give one of them"),
        (("--resume",), "needs --out"),
    ):
        ended = laconic(*command, *TINY, *options)
        assert ended.code == 2
        assert words in ended.err
        assert ended.err.startswith("error: --"), "one line, and no step was taken"
        assert ended.out == ""
    with output_folder(held, option="out", overwrite=True):
        ended = laconic(*command, *TINY, "--out", str(held), "--overwrite")
    assert f"in use by process {os.getpid()}" in ended.err
    assert (held / "times.csv").read_text() == HELD["times.csv"]


def test_no_file_of_an_overwritten_run_remains_and_all_do_where_the_new_run_is_refused(held):
    refused = laconic(
        "run", "-a", "sgd", *TINY, "--dataset", "csv", "--data", "/nowhere", "--out", str(held), "--overwrite"
    )
    assert refused.code == 2
    assert (held / "summary.json").read_text() == HELD["summary.json"]
    with output_folder(held, option="out", overwrite=True) as out:
        batch = Batch([plan()], out)
        batch.run(nothing)
    assert files_in(held) == ["config.toml", "metrics.csv", "rounds.csv", "summary.json"]
    assert (held / "metrics.csv").read_text() != HELD["metrics.csv"]


def test_epochs_are_in_the_file_while_the_run_goes_on(tmp_path):
    seen = []
    with output_folder(tmp_path, option="out", overwrite=False) as out:
        batch = Batch([plan(epochs=3)], out)

        def listen(progress):
            if progress.row is not None:
                lines = list(csv.DictReader((tmp_path / METRICS).read_text().splitlines()))
                seen.append([int(line["epoch"]) for line in lines])
                assert tomllib.loads((tmp_path / "config.toml").read_text())["epochs"] == 3
                assert not (tmp_path / "summary.json").exists()

        batch.run(listen)
    assert seen == [[1], [1, 2], [1, 2, 3]]
    assert (tmp_path / "summary.json").exists()


def test_a_finished_run_is_read_back_as_it_was(tmp_path):
    settings = plan("sasg", workers=3, bandwidth="10Mbit", compute="10ms")
    record = run_simulated(settings, nothing)
    write_record(tmp_path, record)
    again = read_record(tmp_path, settings)
    assert again == record
    assert read_record(tmp_path / "other", settings) is None


@pytest.mark.slow
def test_a_method_that_raises_loses_none_of_the_others_and_is_named_with_its_file_and_line(tmp_path, late):
    out = tmp_path / "out"
    command = ("--load", late, "compare", "sgd", "late", "signsgd-mv", *TINY, "--out", str(out))
    ended = laconic(*command)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    (error,) = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert "late: RuntimeError: boom" in error
    assert 'late.py, line 12, in work: raise RuntimeError("boom")' in error
    assert f"1 of 2 epochs in {out / 'late' / METRICS}" in error
    rows = [line.split()[0] for line in ended.out.splitlines() if line.startswith(("sgd ", "signsgd-mv ", "late "))]
    assert rows == ["sgd", "signsgd-mv"]
    assert [name for name in files_in(out) if "summary" in name] == ["sgd/summary.json", "signsgd-mv/summary.json"]
    before = {name: (out / name).read_bytes() for name in files_in(out) if not name.endswith("png")}

    again = laconic(*command)
    assert "--overwrite replaces them" in again.err
    resumed = laconic(*command, "--resume")
    assert resumed.out == ended.out
    assert f"sgd in {out / 'sgd'} is finished; it is not run again" in resumed.err
    assert "late: epoch 1/2" in resumed.err
    assert {name: (out / name).read_bytes() for name in before} == before


def test_a_comparison_is_continued_with_equal_settings_alone(tmp_path):
    with output_folder(tmp_path, option="out", overwrite=False) as out:
        Batch([plan("sgd")], out, in_folders=True).run(nothing)
    options = ("--out", str(tmp_path), "--resume")
    for command, words in (
        (("compare", "sgd", *TINY, "--epochs", "5"), "twice"),
        (("compare", "sgd", *TINY, "--seed", "4"), "another seed: 0 there, 4 now"),
        (("compare", "sgd", *TINY, "--lr-of", "sgd=0.5"), "another lr: 0.3 there, 0.5 now"),
        (("compare", "sgd", *TINY, "--latency", "1ms"), "another latency: not set there, '1ms' now"),
        (("compare", "signsgd-mv", *TINY), "also holds sgd"),
        (("run", "-a", "sgd", *TINY), "holds a comparison (sgd)"),
    ):
        ended = laconic(*command, *options)
        assert ended.code == 2, ended.out
        assert words in ended.err or words == "twice"
    summary = tmp_path / "sgd" / "summary.json"
    summary.write_text(summary.read_text()[:100])
    assert "summary.json is not what laconic wrote" in laconic("compare", "sgd", *TINY, *options).err


def test_what_cannot_be_written_is_printed_and_named_and_the_others_are_written(tmp_path):
    with output_folder(tmp_path, option="out", overwrite=False) as out:
        batch = Batch([plan("sgd"), plan("signsgd-mv")], out, in_folders=True)

        def listen(progress):
            if progress.row is not None and progress.settings.algorithm == "sgd":
                (tmp_path / "sgd" / "summary.json").mkdir(exist_ok=True)

        batch.run(listen)
    assert [record.settings.algorithm for record in batch.records] == ["sgd", "signsgd-mv"]
    assert batch.unwritten.keys() == {"sgd"}
    assert batch.unwritten["sgd"].filename == str(tmp_path / "sgd" / "summary.json")
    assert json.loads((tmp_path / "signsgd-mv" / "summary.json").read_text())["settings"]["algorithm"] == "signsgd-mv"


def test_rows_that_could_not_be_written_are_written_with_the_next_one(tmp_path):
    rows = run_simulated(plan(epochs=3), nothing).rows
    files = RunFiles(tmp_path, plan(epochs=3))
    files.begin()
    files.add(rows[0])
    files.metrics.rename(tmp_path / "away")
    files.metrics.mkdir()
    with pytest.raises(OSError, match=r"metrics\.csv"):
        files.add(rows[1])
    files.metrics.rmdir()
    (tmp_path / "away").rename(files.metrics)
    files.add(rows[2])
    lines = list(csv.DictReader(files.metrics.read_text().splitlines()))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]


PICTURE_FAILS = FAILING.replace(
    'raise RuntimeError("boom")', '__import__("os").makedirs("out/curves.png", exist_ok=True)'
)


@pytest.mark.slow
def test_a_picture_that_fails_is_named_after_the_figures_are_written_and_printed(tmp_path, monkeypatch, late):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late.py").write_text(PICTURE_FAILS)
    ended = laconic("--load", late, "run", "-a", "late", *TINY, "--out", "out")
    assert ended.code == 2
    assert "late " in ended.out
    assert "curves.png could not be written: Is a directory; the figures are written" in ended.err
    assert (tmp_path / "out" / "summary.json").exists()
