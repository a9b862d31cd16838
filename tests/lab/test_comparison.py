"""The cells of a comparison: the runs that they would be alone, none run twice, none lost to another's failure."""

import csv
import json

import pytest

from laconic.contract import ALGORITHMS
from laconic.errors import OptionError
from laconic.lab.comparison.engine import ComparisonRun, run_comparison
from laconic.lab.comparison.plan import Comparison
from laconic.lab.comparison.shared import trained_together
from laconic.lab.own_results import COMPARISON
from laconic.lab.runs.batch import Batch
from laconic.lab.runs.settings import RunSettings

pytestmark = pytest.mark.slow

SMALL = {"model": "linear", "workers": 2, "batch_size": 100, "epochs": 2}
BREAKING = '''
"""Methods that end badly."""
import os
from dataclasses import dataclass
import laconic
import torch

@laconic.algorithm("raising")
@dataclass(frozen=True, kw_only=True)
class Raising(laconic.SGD):
    """Raises in its third round."""

    def work(self, me):
        if me.round == 2:
            raise RuntimeError("boom")
        return (yield from super().work(me))

@laconic.algorithm("greedy")
@dataclass(frozen=True, kw_only=True)
class Greedy(laconic.SGD):
    """Takes more memory than there is, a piece in each round."""

    def work(self, me):
        held.append(torch.empty(1 << 26))
        return (yield from super().work(me))

@laconic.algorithm("dying")
@dataclass(frozen=True, kw_only=True)
class Dying(laconic.SGD):
    """Is killed."""

    def work(self, me):
        os.kill(os.getpid(), 9)
        return (yield from super().work(me))

held = []
'''


def comparison(*names, seeds=(0,), **more):
    return Comparison(variants={name: {"algorithm": name} for name in names}, options=SMALL, seeds=seeds, **more)


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("cells/**/*") if path.is_file()}


@pytest.fixture
def breaking(tmp_path):
    """A file with methods that end badly, which leave the registry with the test."""
    from laconic.contract import load_plugins

    file = tmp_path / "breaking.py"
    file.write_text(BREAKING)
    load_plugins([str(file)])
    yield str(file)
    for name in ("raising", "greedy", "dying"):
        ALGORITHMS.pop(name, None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A comparison of two methods and two seeds that has run to its end."""
    folder = tmp_path_factory.mktemp("comparison")
    listened = []
    run = run_comparison(comparison("sgd", "ec-sgd", seeds=(0, 1)), folder, jobs=2, listen=listened.append)
    return run, folder, listened


def test_a_cell_is_the_run_that_it_would_be_alone(undisturbed):
    run, folder, _ = undisturbed
    for cell in run.cells:
        batch = Batch([cell.settings])
        batch.run(lambda progress: None)
        assert run.records[cell].rows == batch.records[0].rows
        assert run.records[cell].traffic.up == batch.records[0].traffic.up
    written = json.loads((folder / COMPARISON).read_text())
    assert [cell["state"] for cell in written["cells"]] == ["finished"] * 4
    assert [cell["folder"] for cell in written["cells"]] == [cell.folder for cell in run.cells]
    assert all(cell["seconds"] > 0 and cell["peak_memory_bytes"] > 1e6 for cell in written["cells"])
    assert written["task"]["epochs"] == 2
    assert written["peak_memory_bytes"] >= max(cell["peak_memory_bytes"] for cell in written["cells"])


def test_rounds_add_up_to_the_figures_of_the_epochs(undisturbed):
    run, folder, _ = undisturbed
    for cell in run.cells:
        with (folder / cell.folder / "rounds.csv").open(newline="") as stream:
            rounds = list(csv.DictReader(stream))
        last = run.records[cell].last
        assert [int(row["round"]) for row in rounds] == list(range(1, last.round + 1))
        for name in ("up_wire_bytes", "down_wire_bytes", "up_payload_bits", "skips_up", "skips_down"):
            assert sum(int(row[name]) for row in rounds) == getattr(last, name)
        half = len(rounds) // 2
        loss = sum(float(row["train_loss"]) for row in rounds[half:]) / half
        assert loss == pytest.approx(last.train_loss)
        assert (rounds[0]["residual_norm"] == "") == (cell.label == "sgd"), "sgd keeps none"


def test_the_listener_hears_of_every_cell_until_it_has_ended(undisturbed):
    run, _, listened = undisturbed
    ended = [progress for progress in listened if progress.result is not None]
    assert {progress.name for progress in ended} == {cell.name for cell in run.cells}
    assert [progress.n_ended for progress in ended] == [1, 2, 3, 4]
    assert ended[-1].seconds_left == 0
    assert {progress.done for progress in ended} == {progress.total for progress in ended}


def test_what_is_finished_is_taken_up_and_the_rest_is_run_to_the_same_files(undisturbed, tmp_path):
    _, folder, _ = undisturbed
    earlier = run_comparison(comparison("sgd", seeds=(0,)), tmp_path)
    (tmp_path / "cells/ec-sgd/-/resample/seed-1").mkdir(parents=True)  # as a process that was killed leaves it
    (tmp_path / "cells/ec-sgd/-/resample/seed-1/rounds.csv").write_text("round,epoch,up_wire_bytes,\n9,1.0,\n")
    (tmp_path / "cells/ec-sgd/-/resample/seed-1/.summary.json.1.part").write_text("{")
    again = ComparisonRun(comparison("sgd", "ec-sgd", seeds=(0, 1)), tmp_path)
    assert [cell.name for cell in again.taken_up] == [cell.name for cell in earlier.cells]
    assert again.results[again.taken_up[0]] == earlier.results[earlier.cells[0]]
    begun = []
    again.run(listen=lambda progress: begun.append(progress.name))
    assert again.taken_up[0].name not in begun
    assert files_in(tmp_path) == files_in(folder)


def test_a_folder_of_other_settings_is_refused_before_anything_is_trained(tmp_path):
    run_comparison(comparison("sgd"), tmp_path)
    before = files_in(tmp_path)
    other = Comparison(variants={"sgd": {"algorithm": "sgd", "lr": 0.5}}, options=SMALL)
    with pytest.raises(OptionError, match=r"was made with another lr: 0\.3 there, 0\.5 now"):
        run_comparison(other, tmp_path)
    assert files_in(tmp_path) == before


def test_a_cell_that_raises_diverges_or_runs_out_of_memory_does_not_harm_the_others(tmp_path, breaking):
    names = ("raising", "greedy", "dying", "sgd", "signsgd-mv")
    plan = Comparison(
        variants={name: {"algorithm": name} for name in names} | {"wild": {"algorithm": "sgd", "lr": 1e38}},
        options=SMALL,
    )
    run = run_comparison(plan, tmp_path, jobs=2, plugins=[breaking], memory_bytes=2 << 30)
    results = {cell.label: result for cell, result in run.results.items()}
    assert {label: result.state for label, result in results.items()} == {
        "raising": "failed", "greedy": "failed", "dying": "failed", "sgd": "finished", "signsgd-mv": "finished",
        "wild": "diverged",
    }  # fmt: skip
    assert "RuntimeError: boom (" in results["raising"].why
    assert "breaking.py, line" in results["raising"].why
    assert "MemoryLimitError: there was no memory left for it; it may take 2.15 GB" in results["greedy"].why
    assert "was ended by SIGKILL" in results["dying"].why
    assert results["wild"].why == "most of its last rounds were aborted", "for numbers that are not finite"
    written = {cell["label"]: cell for cell in json.loads((tmp_path / COMPARISON).read_text())["cells"]}
    assert written["raising"]["why"] == results["raising"].why
    alone = Batch([RunSettings(algorithm="sgd", **SMALL)])
    alone.run(lambda progress: None)
    assert run.records[run.cells[3]].rows == alone.records[0].rows
    again = ComparisonRun(plan, tmp_path, plugins=[breaking])
    assert [cell.label for cell in again.left] == ["raising", "greedy", "dying"], "those may succeed another time"


def test_a_cell_on_a_network_is_trained_once_and_is_the_run_that_it_would_be_there_alone(tmp_path):
    networks = {
        "home": {"bandwidth": "1Mbit", "latency": "20ms"}, "office": {"bandwidth": "1Gbit", "compute": "3ms"},
        "ideal": {},
    }  # fmt: skip
    methods = ("csgd-ring", "compskip")
    plan = comparison(*methods, networks=networks)
    assert [len(group) for group in trained_together(plan.cells())] == [3] * len(methods)
    run_comparison(plan, tmp_path / "together")
    for name, options in networks.items():
        run_comparison(comparison(*methods, networks={name: options}), tmp_path / "alone")
    assert files_in(tmp_path / "together") == files_in(tmp_path / "alone")


def test_what_the_network_changes_is_trained_on_each():
    networks = {"home": {"bandwidth": "1Mbit"}, "office": {"bandwidth": "1Gbit"}}
    slow_link = {"algorithm": "compskip", "set": {"skip": "slow-link"}}
    cells = Comparison(
        variants={"asgd": {"algorithm": "asgd"}, "slow": slow_link, "sgd": {"algorithm": "sgd"}}, options=SMALL,
        networks=networks,
    ).cells()  # fmt: skip
    assert [[cell.name.split(", ")[:2] for cell in group] for group in trained_together(cells)] == [
        [["asgd", "home"]], [["asgd", "office"]], [["slow", "home"]], [["slow", "office"]],
        [["sgd", "home"], ["sgd", "office"]],
    ]  # fmt: skip


def test_whatever_is_wrong_with_one_cell_is_found_before_any_is_trained(tmp_path):
    with pytest.raises(OptionError, match=r"batch.*\(of sgd, resample, seed 0\)"):
        run_comparison(
            Comparison(variants={"sgd": {"algorithm": "sgd"}}, options=SMALL | {"batch_size": 5000}), tmp_path
        )
    assert not files_in(tmp_path)


def test_each_cell_has_a_log_of_its_own_by_its_name(tmp_path):
    run = run_comparison(comparison("sgd", seeds=(0, 1)), tmp_path, logs=("jsonl",))
    for cell, record in run.records.items():
        lines = (tmp_path / cell.folder / "log.jsonl").read_text().splitlines()
        begun, *rounds = [json.loads(line) for line in lines]
        assert begun["name"] == cell.name
        steps = [line["step"] for line in rounds if "round/train_loss" in line]
        assert steps == [*range(1, record.traffic.rounds + 1)]
        assert rounds[-1]["event"] == "finish"
