"""Tasks and functions of a user's own over real processes."""

from dataclasses import replace

import pytest

from laconic.errors import OptionError
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_as_rank, run_simulated
from laconic.lab.runs.saved import Saving, check_buffers
from laconic.lab.runs.settings import RunSettings
from support.command_line import laconic
from support.deadlines import PATIENCE_S
from support.own_modules import own_module
from support.ranks import run_ranks

pytestmark = pytest.mark.slow


def figures(record):
    return [(row.train_loss, row.gap, row.mean_squared_gradient, row.consensus_distance) for row in record.rows]


def figures_of_rank(rank, plans):
    return [figures(run_as_rank(plan, lambda progress: None)) for plan in plans]


def test_a_quadratic_has_the_same_figures_over_processes_as_in_the_simulator():
    numbers = {"rounds": "8", "noise": "0.5", "disagreement": "3", "curvature_range": "0.5"}
    plans = [
        RunSettings(algorithm=name, task="quadratic", task_set=numbers, workers=2, epochs=2, lr="theory")
        for name in ("sgd", "dsgd")
    ]
    simulated = [figures(run_simulated(plan, lambda progress: None)) for plan in plans]
    over_processes = run_ranks(figures_of_rank, 2, [replace(plan, driver="processes") for plan in plans])[0]
    assert over_processes == simulated
    assert all(square > 0 for rows in simulated for _, _, square, _ in rows)


OWN = """
import torch
import torch.distributed as dist


def raises_in_one(n_classes):
    if dist.is_initialized() and dist.get_rank() == 1:
        raise RuntimeError("no model here")
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, n_classes))


def norm(n_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, n_classes))
"""


def test_a_model_function_that_raises_in_one_worker_ends_the_run_with_the_place_in_it(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, OWN)
    ended = laconic(
        "--quiet", "run", "-a", "sgd", "--model", f"{own}:raises_in_one", "--driver", "processes", "--workers", "2",
        "--timeout-s", str(PATIENCE_S),
    )  # fmt: skip
    assert ended.code == 2
    place = f"raised RuntimeError: no model here ({own}.py, line 8, in raises_in_one"
    assert f"rank 1: OptionError: model='{own}:raises_in_one' {place}" in ended.err
    assert "Traceback" not in ended.err


def test_a_model_with_statistics_of_its_own_is_not_saved_over_processes(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, OWN)
    plan = RunSettings(algorithm="sgd", model=f"{own}:norm", driver="processes", workers=2)
    with pytest.raises(OptionError, match="norm over processes cannot go on with the same figures"):
        check_buffers(Saving(file=tmp_path / "x", every=1), Experiment(plan))
    check_buffers(Saving(file=tmp_path / "x", every=1), Experiment(replace(plan, driver="simulated")))
