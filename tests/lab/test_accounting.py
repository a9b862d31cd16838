"""What a run sends at set-up, in round 0, in its warm-up and for its tests is counted and shown apart."""

import json
from dataclasses import replace

import pytest

from laconic.errors import OptionError
from laconic.lab.runs.files import read_record, write_record
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.saved import Saving
from laconic.lab.runs.settings import RunSettings
from laconic.report.table_notes import notes_on
from support.command_line import laconic

# 1437 digits: 5 steps an epoch
SMALL = RunSettings(
    algorithm="ssgd-mv", set={"density": "0.05"}, model="linear", workers=2, batch_size=140, epochs=4, dense_epochs=1,
)  # fmt: skip
COMPRESSED = replace(SMALL, warm_up_density=0.5)


def run(settings, saving=None, stop=None):
    def listen(progress):
        if progress.step == stop:
            raise KeyboardInterrupt

    return run_simulated(settings, listen, saving)


def test_the_parts_of_a_run_add_up_and_a_dense_warm_up_bounds_its_ratio(tmp_path):
    records = {name: run(settings) for name, settings in (("dense", SMALL), ("compressed", COMPRESSED))}
    parts = {name: record.parts() for name, record in records.items()}
    for name, record in records.items():
        part, traffic = parts[name], record.traffic
        assert (record.warm_up_rounds, record.dense_rounds) == (5, 5 * (name == "dense"))
        for direction, count in (("up_wire_bytes", traffic.up), ("down_wire_bytes", traffic.down)):
            assert part["warm_up"][direction] + part["after_warm_up"][direction] == count.wire_bytes
            assert 0 < part["round_0"][direction] < part["warm_up"][direction]
        assert part["set_up"]["wire_bytes"] == traffic.setup.wire_bytes > 0
        assert part["evaluation"] == part["checks"] == {"control_bytes": 0}  # the simulator sends none
        bits = record.summary()["bits_per_worker_and_round"]
        assert bits["paper_up"] == pytest.approx(bits["expected_paper_up"])
        assert bits["paper_down"] == pytest.approx(bits["expected_paper_down"])
    in_all = {name: record.summary()["dense_sgd_wire_bytes_over_own"]["total"] for name, record in records.items()}
    later = {name: part["after_warm_up"]["dense_sgd_wire_bytes_over_own"]["total"] for name, part in parts.items()}
    bound = {name: part["warm_up"]["bound_on_ratio"]["total"] for name, part in parts.items()}
    assert bound["dense"] == pytest.approx(4, rel=0.1)  # one epoch of four
    assert in_all["dense"] < bound["dense"] < later["dense"]
    assert later["dense"] == pytest.approx(later["compressed"], rel=0.01)
    assert in_all["compressed"] > 1.5 * in_all["dense"]
    note = next(note for note in notes_on([records["dense"]], lr_by_method=False) if "warm-up" in note)
    assert note.startswith("ssgd-mv: its dense warm-up, 5 of 20 rounds, sent ")
    assert note.endswith(
        f"The total ratio of the rounds after it is {later['dense']:.1f}; that of the whole run stays below "
        f"{bound['dense']:.1f}, however little they send."
    )
    write_record(tmp_path, records["compressed"])
    assert read_record(tmp_path, COMPRESSED).parts() == parts["compressed"]


def test_a_run_that_is_stopped_and_goes_on_has_the_same_parts(tmp_path):
    saving = Saving(file=tmp_path / "checkpoint.pt", every=1)
    with pytest.raises(KeyboardInterrupt):
        run(COMPRESSED, saving, stop=7)
    record = run(COMPRESSED, replace(saving, resume=True))
    assert record.parts() == run(COMPRESSED).parts()


def test_a_density_for_the_warm_up_needs_epochs_in_which_it_falls_and_a_method_that_has_one():
    for options, text in (
        ({"dense_epochs": None}, "warm_up_density=0.5 needs dense_epochs, the number of epochs in which"),
        ({"warm_up_density": 0.01}, "warm_up_density=0.01 must be above density=0.05"),
        ({"algorithm": "sgd", "set": {}}, "sgd has no dense rounds"),
    ):
        with pytest.raises((OptionError, ValueError)) as error:
            replace(COMPRESSED, **options)
        assert text in str(error.value)


@pytest.mark.slow
def test_over_processes_set_up_evaluation_and_checks_are_counted_apart_and_rank_0_logs_every_round(tmp_path):
    command = ("run", "-a", "ssgd-mv", "--driver", "processes", "--model", "linear", "--workers", "2", "--batch-size",
               "240", "--epochs", "2", "--dense-epochs", "1", "--warm-up-density", "0.5",
               "--out", str(tmp_path))  # fmt: skip
    ended = laconic(*command, "--save-every", "1", "--log", "jsonl")
    assert ended.code == 0, ended.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    parts = summary["parts"]
    control = [parts[name]["control_bytes"] for name in ("set_up", "evaluation", "checks")]
    assert min(control) > 0
    assert sum(control) == summary["traffic"]["control_bytes"]
    assert parts["warm_up"]["rounds"] == 2
    assert 0 < parts["round_0"]["up_wire_bytes"] < parts["warm_up"]["up_wire_bytes"]
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    rounds = [line for line in logged if "round/train_loss" in line]
    assert [line["step"] for line in rounds] == [*range(1, summary["traffic"]["rounds"] + 1)]
    assert all(line["round/wait_s"] >= 0 for line in rounds)
    assert [line["event"] for line in logged if line["event"] != "log"] == ["init", "finish"]
