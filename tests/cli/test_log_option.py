"""`--log`: rounds and epochs of a run in the logs that were asked for, beside the files that are always written."""

import csv
import json

from laconic.telemetry.logs import jsonl, kinds
from support.command_line import laconic
from support.tracker_module import calls_in, install_tracker

SMALL = ("--model", "linear", "--workers", "2", "--batch-size", "240", "--epochs", "2", "--local-steps", "2", "--quiet")


def logged_in(folder):
    return [json.loads(line) for line in (folder / jsonl.FILE).read_text().splitlines()]


def check_log(folder):
    """The log of a run in a folder says of rounds and epochs what the run's own files say."""
    begun, *lines, ended = logged_in(folder)
    assert (begun["event"], ended["event"]) == ("init", "finish")
    rounds = [line for line in lines if "round/train_loss" in line]
    epochs = [line for line in lines if "epoch" in line]
    traffic = json.loads((folder / "summary.json").read_text())["traffic"]
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [line["step"] for line in rounds] == [*range(1, traffic["rounds"] + 1)]
    assert [str(line["step"]) for line in epochs] == [row["round"] for row in rows]
    for line, row in zip(epochs, rows, strict=True):
        assert [line["epoch"], line["epoch/test_accuracy"]] == [int(row["epoch"]), float(row["test_accuracy"])]
        assert line["epoch/up_wire_bytes"] == int(row["up_wire_bytes"])
    return rounds, traffic


def test_a_comparison_logs_each_run_in_its_folder_and_begins_anew_when_it_is_overwritten(tmp_path, monkeypatch):
    calls = install_tracker(monkeypatch, tmp_path, "wandb")
    command = ("compare", "sgd", "ssgd-mv", *SMALL, "--log", "jsonl", "--log", "wandb", "--out", str(tmp_path / "a"))
    assert laconic(*command).code == 0
    for name in ("sgd", "ssgd-mv"):
        rounds, traffic = check_log(tmp_path / "a" / name)
        assert sum(line["round/up_wire_bytes"] for line in rounds) == traffic["up"]["wire_bytes"]
    names = [(name, arguments.get("name")) for name, arguments in calls_in(calls) if name != "log"]
    assert names == [
        ("init", "sgd, seed 0"), ("finish", None), ("init", "ssgd-mv, seed 0"), ("finish", None),
    ]  # fmt: skip
    assert laconic("run", "-a", "sgd", *SMALL, "--out", str(tmp_path / "a" / "sgd"), "--overwrite").code == 0
    assert not (tmp_path / "a" / "sgd" / jsonl.FILE).exists()
    command = ("run", "-a", "sgd", *SMALL, "--log", "jsonl", "--out", str(tmp_path / "a" / "ssgd-mv"), "--overwrite")
    assert laconic(*command).code == 0
    assert logged_in(tmp_path / "a" / "ssgd-mv")[0]["name"] == "sgd, seed 0"


def test_a_log_that_cannot_be_written_is_refused_in_one_line_before_training(monkeypatch):
    monkeypatch.setattr(kinds, "find_spec", lambda name: None)
    for arguments, text in (
        (("--log", "jsonl"), "error: --log jsonl writes files, so it needs --out FOLDER\n"),
        (("--log", "trackio"), "error: --log trackio needs the package trackio, which is not installed: pip install"),
    ):
        ended = laconic("run", "-a", "sgd", *SMALL, *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith(text)
