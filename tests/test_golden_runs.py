"""Runs whose figures are stored in `golden/`; see the README there.

They show that a refactoring changes no bit, no byte and no nanosecond. A change that is meant to change figures
rewrites them: `LACONIC_REWRITE_GOLDEN=1 pytest tests/test_golden_runs.py`.
"""

import json

import pytest
import torch

from laconic.protocol.layout import LAYOUTS
from support import golden_jobs, golden_runs
from support.golden_runs import GOLDEN, REWRITE, REWRITING, file_of

pytestmark = pytest.mark.slow

SOME = "some parameters, about"


def written(name):
    """The golden figures of one file, by run; none if there is no file yet."""
    file = file_of(name)
    return json.loads(file.read_text()) if file.is_file() else {}


def hold(name, found):
    """Compare the figures found, by run, with the file of that name, or write them there."""
    found = json.loads(json.dumps(found))
    if REWRITING:
        lines = [f"{json.dumps(run)}: {json.dumps(figures)}" for run, figures in sorted(found.items())]
        file_of(name).write_text("{\n" + ",\n".join(lines) + "\n}\n")
    wrong = differences(written(name), found)
    assert not wrong, "\n".join(["", *wrong, f"({REWRITE}=1 stores what was found, if it is meant to differ)"])


def differences(golden, found):
    """One line for each figure that differs, with the run and both values."""
    lines = [f"{run}: there is no golden run" for run in found if run not in golden]
    lines += [f"{run}: the golden run is made no more" for run in golden if run not in found]
    for run in sorted(golden.keys() & found.keys()):
        for figure in dict.fromkeys([*golden[run], *found[run]]):
            before, now = golden[run].get(figure), found[run].get(figure)
            if before != (pytest.approx(now, rel=1e-3, abs=1e-5) if figure == SOME else now):
                lines.append(f"{run}: {figure}: golden {before}, found {now}")
    return lines


@pytest.mark.parametrize("method", golden_runs.methods())
def test_a_method_gives_its_golden_figures(method):
    """All of its layouts and conditions: parameters, losses, traffic and virtual time.

    Parameters are held bit by bit, but for four cases that `golden/README.md` names.
    """
    hold(method, {run: job.run() for run, job in golden_runs.jobs_of(method).items()})


@pytest.mark.parametrize("network", golden_runs.NETWORKS)
def test_a_plan_gives_its_golden_figures(network):
    """Bytes, step times and break-even bandwidths. Times of encoding are measured, hence not compared."""
    hold(f"plan-{network}", golden_runs.plan_on(network))


def test_every_method_that_is_held_has_a_golden_run_on_every_layout_that_it_admits():
    assert sorted(golden_jobs.LAYOUTS.values()) == sorted(set(LAYOUTS) - {"auto"}), "name the new layout in golden_jobs"
    for method in golden_runs.methods():
        layouts = golden_runs.layouts_of(golden_runs.algorithm(method))
        missing = [layout for layout in layouts if f"{method} | {layout}" not in written(method)]
        assert not missing, f"{method}: no golden run on {missing}; {REWRITE}=1 makes them"


def test_no_golden_file_is_left_of_a_method_that_was_removed():
    names = {file.stem for file in GOLDEN.glob("*.json")}
    assert names == {*golden_runs.methods(), *(f"plan-{network}" for network in golden_runs.NETWORKS)}


def test_one_bit_of_one_parameter_changes_the_hash_and_the_run_is_named():
    job = golden_runs.jobs_of("sgd")["sgd | all-reduce"]
    model, simulation = job.simulation()
    before = job.of_parameters(model, simulation)
    bits = model.weights[1].detach().view(torch.int32)
    bits[3] ^= 1
    now = job.of_parameters(model, simulation)
    (line,) = differences({"sgd | all-reduce": before}, {"sgd | all-reduce": now})
    assert line == f"sgd | all-reduce: parameters: golden {before['parameters']}, found {now['parameters']}"


def test_a_run_that_is_missing_on_either_side_is_named():
    assert differences({"a": {}, "b": {}}, {"b": {}, "c": {}}) == [
        "c: there is no golden run",
        "a: the golden run is made no more",
    ]
