"""The table of runs and the lines below it: what diverged, whose bytes a ratio is over, what seconds are of."""

import csv
import json
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.lab.runs.files import write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.report.curves import draw_curves
from laconic.report.table import comparison
from laconic.report.table_notes import notes_on
from laconic.report.terminal import terminal
from support.command_line import laconic
from support.printed_table import cells_of

SMALL = {"model": "linear", "workers": 3, "batch_size": 160, "epochs": 1}  # 2 rounds


def record_of(name, **options):
    return run_simulated(RunSettings(algorithm=name, **{**SMALL, **options}), lambda progress: None)


def table_of(*records):
    console = terminal()
    with console.capture() as captured:
        console.print(comparison(records))
    return cells_of(captured.get())


def notes_of(*records, lr_by_method=True):
    return "\n".join(notes_on(records, lr_by_method=lr_by_method))


@pytest.fixture(scope="module")
def records():
    return {name: record_of(name) for name in ("sgd", "signsgd-mv", "ec-sgd")}


@pytest.fixture(scope="module")
def diverged():
    return record_of("sgd", lr=1e30, epochs=5, model="mlp")


@pytest.mark.parametrize("layout", ["allreduce", "rank0", "dedicated", "sharded"])
def test_what_dense_sgd_would_send_is_what_it_does_send(layout):
    record = record_of("sgd", layout=layout)
    up, down = record.traffic.up.wire_bytes, record.traffic.down.wire_bytes
    assert record.dense_sgd == DenseSGD(layout=layout, rounds=2, up_wire_bytes=up, down_wire_bytes=down)


def test_local_steps_are_sgds_too():
    record = record_of("sgd", local_steps=3, epochs=2)  # 4 steps: rounds of 3 and 1
    assert record.dense_sgd.rounds == record.traffic.rounds == 2
    assert record.dense_sgd.up_wire_bytes == record.traffic.up.wire_bytes
    assert "Both take 3 local steps to a round." in notes_of(record)


def test_where_sgd_does_not_take_the_layout_its_own_is_the_base():
    assert record_of("signsgd-mv", layout="allgather").dense_sgd.layout == "allreduce"


def test_a_ratio_is_the_same_whatever_else_is_compared(records):
    alone = table_of(records["signsgd-mv"])["signsgd-mv"]
    beside = table_of(records["ec-sgd"], records["signsgd-mv"], records["sgd"])
    assert alone == beside["signsgd-mv"]
    assert {beside["sgd"][f"{name} ratio"] for name in ("up", "down", "total")} == {"1.0"}


def test_the_ratio_of_the_total_is_that_of_both_directions_together(records):
    row, traffic = table_of(records["signsgd-mv"])["signsgd-mv"], records["signsgd-mv"].traffic
    dense = 2 * 2 * 3 * round(650 * 4 * 2 / 3)  # directions, rounds, workers, a worker's share of the ring
    assert row["total ratio"] == f"{dense / (traffic.up.wire_bytes + traffic.down.wire_bytes):.1f}"


def test_the_note_says_of_what_bytes_a_ratio_is_and_over_what_time(records):
    note = next(line for line in notes_of(records["ec-sgd"]).splitlines() if line.startswith("ratio"))
    assert "wire bytes of sgd" in note
    assert "2 rounds, layout allreduce" in note
    assert "whole run" in note


def test_bytes_that_nobody_sends_have_no_ratio():
    row = table_of(record_of("sgd", workers=1))["sgd"]
    assert {row[f"{name} ratio"] for name in ("up", "down", "total")} == {"-"}


def test_records_without_a_base_take_the_sgd_of_the_table_or_have_no_ratio(records):
    bare = {name: replace(record, dense_sgd=None) for name, record in records.items()}
    assert table_of(bare["ec-sgd"], bare["sgd"])["ec-sgd"] == table_of(records["ec-sgd"])["ec-sgd"]
    assert table_of(bare["ec-sgd"])["ec-sgd"]["up ratio"] == "-"
    assert "ratio: not known" in notes_of(bare["ec-sgd"])


def test_a_diverged_run_is_marked_has_no_ratio_and_is_explained(records, diverged):
    rows = table_of(diverged, records["ec-sgd"])
    assert rows["sgd"]["accuracy"].endswith("% diverged")
    assert rows["sgd"]["aborted"] == "9"
    assert rows["sgd"]["total ratio"] == "-"
    assert rows["ec-sgd"]["aborted"] == "0"
    note = notes_of(diverged, records["ec-sgd"]).splitlines()[0]
    assert note.startswith("sgd diverged: ")
    assert "9 of 10 rounds had no effect" in note
    assert "Give a lower --lr-of sgd=RATE (it was 1e+30; the method's own is 0.3)" in note
    assert "Give a lower --lr (" in notes_of(diverged, lr_by_method=False)


def test_one_aborted_round_is_noted_without_alarm(records):
    last = replace(records["sgd"].last, aborted_rounds=1, train_loss=float("nan"), test_accuracy=0.9)
    record = replace(records["sgd"], rows=[last])
    assert table_of(record)["sgd"]["accuracy"] == "90.00%"
    assert "sgd: 1 of 2 rounds was aborted, because a number was inf or NaN, and had no effect." in notes_of(record)
    assert "diverged" not in notes_of(record)


def test_a_learning_rate_that_was_another_methods_is_noted(records):
    note = "signsgd-mv: the learning rate 0.1 is far above its usual 0.002"
    assert note in notes_of(record_of("signsgd-mv", lr=0.1))
    assert "usual" not in notes_of(*records.values())


def test_of_an_asynchronous_method_single_gradients_are_aborted():
    record = record_of("asgd", lr=1e30, epochs=5, model="mlp")
    assert record.why_diverged
    assert f"{record.last.aborted_rounds} of 30 gradients had no effect" in notes_of(record)


def test_the_legend_of_the_picture_says_what_diverged(diverged, monkeypatch):
    seen = []
    monkeypatch.setattr(Figure, "legend", lambda figure, lines, labels, **_: seen.extend(labels))
    draw_curves([diverged], ".svg")
    assert seen == ["sgd (diverged)"]


def test_no_seconds_are_claimed_where_nothing_takes_time(records):
    assert table_of(records["sgd"])["sgd"]["simulated s"] == "-"
    assert "simulated s: none, since no --bandwidth, --latency or --compute is given" in notes_of(records["sgd"])


def test_a_small_figure_is_not_shown_as_0(records):
    last = replace(records["ec-sgd"].last, seconds=0.0123)
    base = replace(records["ec-sgd"].dense_sgd, up_wire_bytes=1)
    row = table_of(replace(records["ec-sgd"], rows=[last], dense_sgd=base))["ec-sgd"]
    assert row["simulated s"] == "0.012"
    assert 0 < float(row["up ratio"]) < 0.1


def test_seconds_name_what_is_not_in_them():
    record = record_of("sgd", bandwidth="1Mbit")
    assert float(table_of(record)["sgd"]["simulated s"]) > 0
    assert "nothing is counted for --latency and --compute, not given" in notes_of(record)
    complete = record_of("sgd", bandwidth="1Mbit", latency="1ms", compute="1ms")
    assert "not given" not in notes_of(complete)


QUICK = ("--workers", "3", "--batch-size", "160")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")


@pytest.mark.slow
def test_a_comparison_in_which_a_run_diverged_ends_with_3_and_all_its_files(tmp_path):
    ended = laconic("compare", "sgd", "ec-sgd", *QUICK, "--epochs", "5", "--lr-of", "sgd=1e30", "--out", str(tmp_path))
    assert ended.code == 3
    assert cells_of(ended.out)["sgd"]["accuracy"].endswith("diverged")
    summaries = {name: json.loads((tmp_path / name / "summary.json").read_text()) for name in ("sgd", "ec-sgd")}
    assert summaries["sgd"]["diverged"] is True
    assert "rounds" in summaries["sgd"]["diverged_because"]
    assert summaries["ec-sgd"]["diverged"] is False
    assert summaries["ec-sgd"]["diverged_because"] is None
    assert (tmp_path / "curves.png").exists()


def test_a_run_that_diverged_ends_with_3_and_a_sound_one_with_0():
    assert laconic("run", "-a", "sgd", *QUICK, "--epochs", "5", "--lr", "1e30").code == 3
    assert laconic("run", "-a", "sgd", *QUICK, "--epochs", "1").code == 0


@pytest.mark.slow
def test_a_run_over_processes_that_diverged_ends_with_3():
    ended = laconic("run", "-a", "sgd", *QUICK, "--epochs", "5", "--lr", "1e30", "--driver", "processes")
    assert ended.code == 3
    assert "sgd diverged: " in ended.out
    assert float(cells_of(ended.out)["sgd"]["wall s"]) >= 0


def test_the_summary_has_null_for_what_is_not_given_or_not_counted(records, tmp_path):
    write_record(tmp_path / "a", records["sgd"])
    write_record(tmp_path / "b", record_of("sasg"))
    sgd, sasg = (json.loads((tmp_path / name / "summary.json").read_text()) for name in "ab")
    assert (sgd["clock"], sgd["seconds"], sgd["traffic"]["seconds"]) == ("simulated", None, {"virtual": None})
    assert sgd["dense_sgd_wire_bytes_over_own"] == {"up": 1.0, "down": 1.0, "total": 1.0}
    assert sgd["bits_per_worker_and_round"]["paper_down"] > 0
    assert sasg["bits_per_worker_and_round"]["paper_down"] is None
    with (tmp_path / "a" / "metrics.csv").open() as file:
        assert [row["seconds"] for row in csv.DictReader(file)] == [""]
