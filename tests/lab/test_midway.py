"""A cell that is stopped within an epoch goes on from there, and ends with the files of one without a break."""

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial

import pytest

from laconic.contract import ALGORITHMS, load_plugins
from laconic.errors import SavedRunError
from laconic.lab.comparison.cell_process import look_at_cell
from laconic.lab.comparison.engine import run_comparison
from laconic.lab.comparison.plan import Comparison
from laconic.lab.own_results import MIDWAY
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.looks import LookPlan
from laconic.lab.runs.run import look_at_simulated, run_simulated
from laconic.lab.runs.saved import Saving, read, write
from laconic.lab.runs.settings import RunSettings
from laconic.statements import LaconicWarning
from support.deadlines import DEADLINE_S
from support.inputs import over_inputs

pytestmark = pytest.mark.slow

# 1437 digits: 5 steps an epoch
SMALL = RunSettings(algorithm="sgd", model="linear", workers=2, batch_size=140, epochs=3)
NETWORK = {"bandwidth": "1Mbit", "latency": "5ms", "compute": "20ms"}
RUNS = {
    "local steps that the stop interrupts": {"algorithm": "ssgd-mv", "local_steps": 3, "lr_schedule": "cosine"},
    "error feedback": {"algorithm": "ec-sgd", "partition": "fixed"},
    "two gradients, and uploads of many ages": {"algorithm": "sasg"},
    "arrivals": {"algorithm": "asgd", "workers": 3, "batch_size": 95, **NETWORK},
    "models that differ": {"algorithm": "dsgd", "local_steps": 2},
    "a task that measures gradients": {"task": "quadratic", "task_set": {"rounds": "5", "noise": "0.5"}},
}  # fmt: skip


class StopError(Exception):
    pass


def stopped_after(step):
    """A listener that stops the run after a step, as a signal would."""

    def listen(progress):
        if progress.step == step:
            raise StopError

    return listen


def settings_of(what):
    options = RUNS[what]
    if "task" in options:
        return RunSettings(algorithm="sgd", workers=2, epochs=3, **options)
    return replace(SMALL, **options)


@over_inputs("what", RUNS)
def test_a_run_stopped_within_an_epoch_goes_on_with_the_same_rows_and_rounds(what, tmp_path):
    settings, saving = settings_of(what), Saving(file=tmp_path / what, every_s=0.0)
    unbroken, reports = [], []
    expected = run_simulated(settings, unbroken.append)
    with pytest.raises(StopError):
        run_simulated(settings, stopped_after(8), saving)
    record = run_simulated(settings, reports.append, replace(saving, resume=True))
    assert 4 < reports[0].step < 8
    assert list(map(asdict, record.rows)) == list(map(asdict, expected.rows))
    assert record.traffic == expected.traffic
    rounds = [row for progress in unbroken for row in progress.rounds]
    later = [row for progress in reports for row in progress.rounds]
    assert later
    assert later == rounds[-len(later) :]


def test_a_run_that_is_looked_at_goes_on_with_the_same_looks_and_bits_or_begins_anew(tmp_path):
    settings, looks, folder = replace(SMALL, algorithm="ec-sgd"), LookPlan(every=4), tmp_path / "cell"
    expected = look_at_simulated(settings, looks, lambda progress: None)
    steps = []

    def stop(done, total, note):
        if done == 10:
            raise StopError

    def found():
        steps.clear()
        figures = look_at_cell(lambda done, total, note: steps.append(done), settings, looks, folder, 0.0)
        assert not list(folder.iterdir()), "nothing of it stays"
        return {name: value for name, value in figures.items() if name != "seconds"}

    expected.pop("seconds")
    with pytest.raises(StopError):
        look_at_cell(stop, settings, looks, folder, 0.0)
    assert found() == expected
    assert steps[0] == 9
    (folder / MIDWAY).write_bytes(b"laconic run\n")
    with pytest.warns(LaconicWarning, match="is damaged: its bytes are not those that were written; it begins anew"):
        assert found() == expected
    assert steps[0] == 1


def test_looks_have_the_mean_squared_gradient_of_all_steps_so_far_also_after_a_stop(tmp_path):
    settings, looks = replace(settings_of("a task that measures gradients"), epochs=1), LookPlan(every=2)
    saving = Saving(file=tmp_path / "saved", every_s=0.0)
    expected = run_simulated(settings, lambda progress: None).last.mean_squared_gradient
    found = look_at_simulated(settings, looks, lambda progress: None)["looks"]
    assert found[-1]["mean_squared_gradient"] == expected
    assert found[0]["mean_squared_gradient"] > found[-1]["mean_squared_gradient"]
    with pytest.raises(StopError):
        look_at_simulated(settings, looks, stopped_after(3), saving)
    again = look_at_simulated(settings, looks, lambda progress: None, replace(saving, resume=True))["looks"]
    assert again == found


def test_what_one_run_has_saved_between_two_epochs_is_refused_to_another(tmp_path):
    saving = Saving(file=tmp_path / "saved", every_s=0.0)
    with pytest.raises(StopError):
        run_simulated(SMALL, stopped_after(8), saving)
    again = replace(saving, resume=True)
    with pytest.raises(SavedRunError, match=r"another seed: 0 there, 1 now"):
        run_simulated(replace(SMALL, seed=1), stopped_after(9), again)
    with pytest.raises(SavedRunError, match="its looks"):
        look_at_simulated(SMALL, LookPlan(every=4), stopped_after(9), again)


def test_a_step_that_is_no_step_of_the_run_is_refused(tmp_path):
    saving, experiment = Saving(file=tmp_path / "saved", every_s=0.0), Experiment(SMALL)
    with pytest.raises(StopError):
        run_simulated(SMALL, stopped_after(8), saving)
    saved = read(saving.file.read_bytes(), saving, experiment)
    for step in (4, 10, 15, 1 << 40):
        assert not write(saving, experiment, replace(saved, midway={**saved.midway, "step": step}))
        with pytest.raises(SavedRunError, match=f"at step {step} of 15, with the rows of 1 epochs"):
            run_simulated(SMALL, stopped_after(9), replace(saving, resume=True))


DYING = '''
"""A method whose process is killed once, in its eighth round."""
import os
from dataclasses import dataclass
from pathlib import Path
import laconic

@laconic.algorithm("dying-once")
@dataclass(frozen=True, kw_only=True)
class DyingOnce(laconic.ECSGD):
    """Is killed once."""

    def work(self, me):
        journal = Path({folder!r}) / f"{{me.rank}}.txt"
        with journal.open("a") as stream:
            stream.write(f"{{me.round}}\\n")
        if me.round == 7 and me.rank == 0 and journal.read_text().split().count("7") == 1:
            os.kill(os.getpid(), 9)
        return (yield from super().work(me))
'''


def files_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("cells/**/*") if path.is_file()}


def test_a_killed_cell_goes_on_in_the_middle_and_leaves_the_files_of_an_undisturbed_one(tmp_path):
    file = tmp_path / "dying.py"
    file.write_text(DYING.format(folder=str(tmp_path)))
    load_plugins([str(file)])
    plan = Comparison(
        variants={"dying": {"algorithm": "dying-once"}},
        options={"model": "linear", "workers": 2, "batch_size": 140, "epochs": 2},
        networks={"home": NETWORK, "office": {"bandwidth": "1Gbit"}},
    )
    try:
        killed = run_comparison(plan, tmp_path / "killed", plugins=[str(file)], save_every_s=0.0)
        assert {result.state for result in killed.results.values()} == {"failed"}
        run = run_comparison(plan, tmp_path / "killed", plugins=[str(file)], save_every_s=0.0)
        rounds = list(map(int, (tmp_path / "0.txt").read_text().split()))
        run_comparison(plan, tmp_path / "undisturbed", plugins=[str(file)])
    finally:
        ALGORITHMS.pop("dying-once")
    assert {result.state for result in run.results.values()} == {"finished"}
    assert rounds == [*range(8), *range(7, 10)], "it goes on with the round in which it was killed"
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "undisturbed")


COMMAND = """
import sys
from pathlib import Path
from laconic.lab.comparison.engine import run_comparison
from laconic.lab.comparison.plan import Comparison
plan = Comparison(
    variants={name: {"algorithm": name} for name in ("ec-sgd", "sasg", "asgd")}, seeds=(0, 1),
    options={"model": "linear", "workers": 2, "batch_size": 60, "epochs": 3},
    networks={"home": {"bandwidth": "1Mbit", "compute": "20ms"}, "office": {"bandwidth": "1Gbit"}},
)
run_comparison(plan, Path(sys.argv[1]), jobs=2, save_every_s=0.0)
"""


@pytest.mark.nightly
def test_a_comparison_killed_at_random_moments_goes_on_within_its_cells_to_the_same_files(tmp_path):
    script = tmp_path / "compare.py"
    script.write_text(COMMAND)
    begin = partial(subprocess.Popen, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    assert begin([sys.executable, script, tmp_path / "undisturbed"]).wait(DEADLINE_S) == 0
    draw, within = random.Random(18), 0
    for _ in range(4):
        run = begin([sys.executable, script, tmp_path / "out"])
        wait_for_saves(tmp_path / "out", draw.randrange(2, 40), run)
        assert run.poll() is None, "it is killed before its end"
        run.kill()
        run.wait(DEADLINE_S)
        within += len(list((tmp_path / "out").glob(f"cells/**/{MIDWAY}")))
    assert within, "some cells were killed after they had saved themselves"
    assert begin([sys.executable, script, tmp_path / "out"]).wait(DEADLINE_S) == 0
    assert files_in(tmp_path / "out") == files_in(tmp_path / "undisturbed")


def wait_for_saves(folder, n_changes, run):
    """Wait until what cells have saved has changed so many times, or the command ends."""
    before, seen = None, -1
    while seen < n_changes and run.poll() is None:
        now = {path: when(path) for path in folder.glob(f"cells/**/{MIDWAY}")}
        seen += now != before
        before = now


def when(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # the cell is finished
        return 0


def test_a_finished_cell_with_fewer_rounds_in_its_file_is_named_and_trained_again(tmp_path):
    plan = Comparison(
        variants={"sgd": {"algorithm": "sgd"}},
        options={"model": "linear", "workers": 2, "batch_size": 300, "epochs": 2}, seeds=(0, 1),
    )  # fmt: skip
    run_comparison(plan, tmp_path)
    expected, seconds = files_in(tmp_path), seconds_in(tmp_path)
    file = tmp_path / "cells/sgd/-/resample/seed-1/rounds.csv"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.warns(LaconicWarning, match=r"rounds.csv has 3 of 4 rounds; sgd, resample, seed 1 is trained again"):
        again = run_comparison(plan, tmp_path)
    assert [cell.seed for cell in again.taken_up] == [0]
    assert files_in(tmp_path) == expected
    assert seconds_in(tmp_path)[0] == seconds[0], "the other one is not"


def seconds_in(folder):
    return [cell["seconds"] for cell in json.loads((folder / "comparison.json").read_text())["cells"]]
