"""`laconic reproduce` as a user meets it: the list, a table on the terminal and in a file, mistakes, Ctrl-C."""

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from laconic.reproduce import TABLES, sasg_mnist
from support.command_line import laconic
from support.deadlines import DEADLINE_S

BIN = Path(sys.executable).parent
SIDE = 28


def idx_folder(folder, n_train, n_test, *, teaches):
    """MNIST's four files: each class is a bright row of its own, or where it teaches nothing, every picture is dark."""
    for prefix, n in (("train", n_train), ("t10k", n_test)):
        labels = bytes(place % 10 for place in range(n))
        rows = [bytes([255 if teaches and row == 2 * label else 0]) * SIDE for label in labels for row in range(SIDE)]
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, n, SIDE, SIDE) + b"".join(rows))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, n) + labels)
    return folder


def test_without_a_name_and_with_list_every_table_is_named_with_its_source():
    listed = laconic("reproduce", "--list")
    assert listed.code == 0
    assert laconic("reproduce").out == listed.out
    assert all(name in listed.out for name in TABLES)
    assert "Ozfatura" in listed.out


@pytest.mark.slow
def test_its_figures_and_its_list_are_json_where_that_is_asked_for(tmp_path):
    listed = json.loads(laconic("reproduce", "--json", "-").out)
    assert [table["name"] for table in listed["tables"]] == list(TABLES)
    ended = laconic("reproduce", "sasg-table3-memory", "--json", "-")
    assert ended.code == 0, ended.err
    printed = json.loads(ended.out)
    assert printed["table"] == "sasg-table3-memory"
    assert printed["tables"]
    file = tmp_path / "figures.json"
    ended = laconic("reproduce", "sasg-table3-memory", "--json", str(file))
    assert "wrote" in ended.out
    assert "figures.json" in ended.out
    assert json.loads(file.read_text())["tables"] == printed["tables"]


MISTAKES = {
    "an unknown table, with near misses": (("sasg-table2-mnits",), ("'sasg-table2-mnits'", "did you mean sasg-table2")),
    "no data": (("sasg-table2-mnist",), ("mnist: needs --data", "sha256")),
    "a folder without the files": (("sasg-table2-mnist", "--data", "/nowhere"), ("'/nowhere' is not a folder",)),
    "data for a table that reads none": (("ssgdmv-table1-bits", "--data", "here"), ("reads no data",)),
    "an unknown method": (("sasg-table2-mnist", "--methods", "sgd,lsag"), ("'lsag'", "did you mean")),
    "seeds that are no numbers": (("sasg-table2-mnist", "--seeds", "1;2"), ("--seeds '1;2'", "1,19,31")),
    "no processes": (("ssgdmv-table1-bits", "--jobs", "0"), ("--jobs 0", "at least 1")),
    "a folder as result file": (("ssgdmv-table1-bits", "--out", "."), ("--out . is a folder", ".json")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_one_line_before_anything_is_run(mistake):
    arguments, expected = MISTAKES[mistake]
    ended = laconic("reproduce", *arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err
    for words in expected:
        assert words in ended.err, ended.err


@pytest.mark.slow
def test_a_table_is_printed_within_80_columns_and_written_with_every_figure(tmp_path, monkeypatch):
    data = idx_folder(tmp_path, 100, 50, teaches=True)
    out = tmp_path / "result.json"
    monkeypatch.setenv("COLUMNS", "80")
    ended = laconic("reproduce", "sasg-table2-mnist", "--data", str(data), "--methods", "sgd,sasg", "--seeds", "3",
                    "--out", str(out))  # fmt: skip
    assert ended.code == 0, ended.err
    assert "sgd: begins" in ended.err
    assert max(map(len, ended.out.replace(str(out), "").splitlines())) <= 80
    result = json.loads(out.read_text())
    assert result["command"][:2] == ["laconic", "reproduce"]
    assert result["settings"]["seeds"] == [3]
    sgd, sasg = result["found"]
    assert (sgd["method"], sasg["method"]) == ("sgd", "sasg")
    assert sgd["uploads"] == 10 * sgd["iterations"] == 200
    assert sgd["paper_bits"] == 32 * 407_050 * sgd["uploads"]
    assert sasg["paper_bits"] == 32 * 4071 * sasg["uploads"]
    assert sasg["uploads"] + sasg["skips"] == 200
    assert sasg["uploads"] >= 100, "in the first 10 rounds all workers upload"
    assert sgd["curve"][-1]["test_accuracy"] == sgd["test_accuracy"]
    assert sgd["reached"] == (sgd["test_accuracy"] >= 0.98)
    assert result["printed"]["sasg"]["rounds"] == 22_823


@pytest.mark.slow
def test_a_table_with_a_run_that_diverged_is_printed_and_ends_with_3(tmp_path, monkeypatch):
    monkeypatch.setattr(sasg_mnist, "_LEARNING_RATE", 1e29)
    data, out = idx_folder(tmp_path, 100, 50, teaches=True), tmp_path / "result.json"
    ended = laconic("reproduce", "sasg-table2-mnist", "--data", str(data), "--methods", "sgd", "--out", str(out))
    assert ended.code == 3
    assert "sgd (diverged)" in ended.out
    assert "diverged: sgd (seed 1): most of its last rounds were aborted" in " ".join(ended.out.split())
    assert json.loads(out.read_text())["found"][0]["diverged"] == "most of its last rounds were aborted"


@pytest.mark.slow
def test_ctrl_c_says_stopped_and_leaves_nobody_behind(tmp_path):
    data = idx_folder(tmp_path, 10_000, 10, teaches=False)
    run = subprocess.Popen(
        [str(BIN / "laconic"), "reproduce", "sasg-table2-mnist", "--data", str(data), "--methods", "sgd,lasg"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert run.stderr is not None
        top_line = run.stderr.readline()
        assert ": begins" in top_line, top_line
        os.killpg(run.pid, signal.SIGINT)  # the group that this test made: what a terminal does
        out, err = run.communicate(timeout=DEADLINE_S)  # ends when every process that holds these pipes is gone
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    assert "Traceback" not in out + err
    assert "stopped" in err
    assert run.returncode == 130
