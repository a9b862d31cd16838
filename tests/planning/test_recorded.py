"""Recorded runs, timed again on another network by the bytes that they measured."""

import json

import pytest

from laconic.errors import OptionError
from laconic.lab.runs.files import write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.network import Link
from laconic.planning.recorded import read_recorded


def recorded(folder, algorithm, **options):
    options = {"batch_size": 90, **options}
    settings = RunSettings(algorithm=algorithm, epochs=1, model="linear", bandwidth="1Mbit", latency="2ms", **options)
    record = run_simulated(settings, lambda progress: None)
    write_record(folder, record)
    return record


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("sgd", {}), ("sgd", {"layout": "sharded"}), ("sgd", {"layout": "dedicated"}),
        ("ec-sgd", {}), ("ssgd-mv", {"layout": "allreduce"}), ("csgd-ring", {}),
        ("sgd", {"local_steps": 2, "layout": "rank0"}), ("ssgd-topk", {"dense_epochs": 0.25}),
        ("ec-sgd", {"workers": 14, "batch_size": 20, "clients_per_round": 3, "layout": "dedicated"}),
    ],
)  # fmt: skip
def test_on_its_own_network_a_run_takes_as_long_as_it_took(tmp_path, algorithm, options):
    record = recorded(tmp_path, algorithm, **options)
    (run,) = read_recorded(tmp_path)
    asked = run.query(Link(bytes_per_s=125e3, latency_s=2e-3), None)
    candidate = run.candidate(asked, measure=False)
    traffic, n = record.traffic, candidate.layout.n_workers
    steps = traffic.rounds * record.settings.local_steps
    if not record.dense_rounds:
        assert candidate.step_s(asked.link) * steps == pytest.approx(record.last.seconds, rel=0.01)
        assert candidate.up_bytes * steps * n == pytest.approx(traffic.up.wire_bytes, rel=1e-3)
    else:
        sparse = traffic.up_by_exchange["update"].wire_bytes
        assert candidate.up_bytes * (traffic.rounds - record.dense_rounds) * n == pytest.approx(sparse, rel=1e-3)


def test_the_compute_time_is_the_runs_own_unless_one_is_given(tmp_path):
    recorded(tmp_path, "sgd", compute="50ms")
    (run,) = read_recorded(tmp_path)
    assert run.query(Link(), None).compute_s == 0.05
    assert run.query(Link(), 1.5).compute_s == 1.5


def test_of_a_comparison_over_seeds_one_finished_cell_of_each_variant_is_timed(tmp_path):
    cells = [("sgd", 0, "failed"), ("sgd", 1, "finished"), ("sgd", 2, "finished"), ("votes", 0, "not run")]
    names = ("label", "seed", "state")
    noted = [
        dict(zip(names, cell, strict=True)) | {
            "folder": f"cells/{cell[0]}/-/iid/seed-{cell[1]}", "algorithm": "sgd", "network": None, "partition": "iid",
            "why": None, "seconds": None, "peak_memory_bytes": None,
        }
        for cell in cells
    ]  # fmt: skip
    (tmp_path / "comparison.json").write_text(json.dumps({"cells": noted}))
    recorded(tmp_path / "cells/sgd/-/iid/seed-1", "sgd", seed=1)
    (run,) = read_recorded(tmp_path)
    assert run.settings.seed == 1
    (tmp_path / "comparison.json").write_text(json.dumps({"cells": noted[:1]}))
    with pytest.raises(OptionError, match="none of its cells is finished"):
        read_recorded(tmp_path)


def test_a_run_without_a_gradients_time_has_none_rather_than_nothing(tmp_path):
    recorded(tmp_path, "sgd")
    (run,) = read_recorded(tmp_path)
    assert run.query(Link(), None).compute_s is None


def test_a_run_with_faults_is_read_with_the_folders_own_copy_of_them(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text("seed = 1\nlost = 0.05\n")
    recorded(tmp_path / "run", "ec-sgd", faults=str(plan))
    plan.unlink()
    (run,) = read_recorded(tmp_path / "run")
    assert run.settings.fault_plan.lost == 0.05


def test_a_comparison_is_read_run_by_run(tmp_path):
    recorded(tmp_path / "a", "sgd")
    recorded(tmp_path / "b", "signsgd-mv")
    assert [run.settings.algorithm for run in read_recorded(tmp_path)] == ["sgd", "signsgd-mv"]


def damaged_summary(folder):
    summary = json.loads((folder / "summary.json").read_text())
    del summary["traffic"]
    (folder / "summary.json").write_text(json.dumps(summary))


def with_another_summary(folder):
    recorded(folder.parent / "other", "signsgd-mv")
    (folder / "summary.json").write_text((folder.parent / "other" / "summary.json").read_text())


def with_times(folder):
    (folder / "times.csv").write_text("rank,round,what,start_s,end_s\n0,0,compute,0,1\n")


DAMAGED = {
    "the times of another run": (with_times, "times.csv is of another run"),
    "the faults of another run": (
        lambda folder: (folder / "faults.toml").write_text("seed = 1\nlost = 0.05\n"),
        "faults.toml is of another run",
    ),
    "the summary of another run": (with_another_summary, "summary.json is of another run than config.toml"),
    "no run at all": (lambda folder: (folder / "config.toml").unlink(), "there is no config.toml in it"),
    "a run without an end": (lambda folder: (folder / "summary.json").unlink(), "summary.json is missing"),
    "a summary of something else": (damaged_summary, "summary.json: is not what `laconic run` writes"),
    "a text that is no JSON": (lambda folder: (folder / "summary.json").write_text("{"), "summary.json: is not what"),
    "a config that is no TOML": (lambda folder: (folder / "config.toml").write_text("= ="), "config.toml: is not TOML"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_folder_that_holds_no_finished_run_is_refused(tmp_path, how):
    damage, message = DAMAGED[how]
    folder = tmp_path / "run"
    recorded(folder, "sgd")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        read_recorded(folder)
