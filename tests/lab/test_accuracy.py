"""Test accuracy where each worker has a model of its own: of their mean, of each, and how far apart they are."""

import csv
import json
from dataclasses import replace

import pytest
import torch

import laconic
from laconic.lab.runs.accuracy import in_simulation, models_differ
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.files import write_record
from laconic.lab.runs.launch import run_in_processes
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.report.curves import draw_curves
from laconic.report.table_notes import own_models
from laconic.training.consensus import consensus_distance, squared_distance
from laconic.training.simulation import Simulation
from support.deadlines import PATIENCE_S

# 1437 digits: 3 steps an epoch
SMALL = RunSettings(algorithm="dsgd", model="linear", workers=4, batch_size=100, epochs=3, lr=0.5)


def ignore_progress(progress):
    pass


def own_figures(row):
    return (
        row.test_accuracy,
        row.own_accuracy_lowest,
        row.own_accuracy_mean,
        row.own_accuracy_highest,
        (row.consensus_distance),
    )


def test_the_figures_are_those_of_the_models_one_by_one():
    experiment = Experiment(SMALL)
    simulation = Simulation(experiment.model, experiment.inner, experiment.algorithm, workers=4)
    for step in range(5):
        simulation.step(lambda rank, step=step: experiment.loss(rank, step))
    shown = simulation.flat.values()
    found = in_simulation(simulation, experiment)
    assert torch.equal(simulation.flat.values(), shown), "the model is as it was"
    models = [simulation.parameters_of(rank) for rank in range(4)]
    alone = []
    for model in models:
        simulation.flat.set_values(model)
        alone.append(experiment.accuracy())
    assert found.own == tuple(alone)
    assert len(set(alone)) > 1
    table = torch.stack(models).double()
    apart = (table - table.mean(0)).square().sum(1).mean().sqrt()
    assert found.consensus_distance == pytest.approx(float(apart), rel=1e-5)
    simulation.flat.set_values(torch.stack(models).mean(0))
    assert found.test == experiment.accuracy()


def test_the_consensus_distance_of_two_models_is_half_their_distance():
    one, other = torch.tensor([0.0, 3.0]), torch.tensor([8.0, -3.0])
    mean = (one + other) / 2
    assert consensus_distance([squared_distance(one, mean), squared_distance(other, mean)]) == 5.0


def test_only_gossip_leaves_each_worker_a_model_to_end_with():
    assert [name for name, kind in laconic.ALGORITHMS.items() if models_differ(kind())] == ["dsgd"]


def test_full_averaging_leaves_no_distance_and_another_method_has_no_such_figures(tmp_path):
    full = run_simulated(replace(SMALL, set={"graph": "full"}), ignore_progress)
    assert full.last.consensus_distance == pytest.approx(0, abs=1e-6)
    assert full.last.own_accuracy_lowest == full.last.own_accuracy_highest == full.last.test_accuracy
    reference = run_simulated(replace(SMALL, algorithm="sgd"), ignore_progress)
    assert own_figures(reference.last)[1:] == (None,) * 4
    assert "consensus_distance" not in reference.summary()


def test_files_line_and_picture_show_the_workers_own_models(tmp_path):
    record = run_simulated(replace(SMALL, set={"graph": "star"}), ignore_progress)
    write_record(tmp_path, record)
    with (tmp_path / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    summary = json.loads((tmp_path / "summary.json").read_text())
    for name in ("own_accuracy_lowest", "own_accuracy_mean", "own_accuracy_highest", "consensus_distance"):
        assert float(last[name]) == summary[name] == getattr(record.last, name)
    assert f"workers' own: {record.last.own_accuracy_lowest:.2%} to" in own_models(record)
    assert b"bands: the workers' own models" in draw_curves([record], ".svg")


def test_steps_left_over_at_the_end_are_exchanged():
    record = run_simulated(replace(SMALL, algorithm="sgd", local_steps=4), ignore_progress)
    assert record.traffic.rounds == 3, "4, 4 and 1 of 9 steps"
    one = run_simulated(replace(SMALL, algorithm="sgd", local_steps=4, epochs=1), ignore_progress)
    assert one.traffic.rounds == 1
    assert one.last.test_accuracy > 0.2, "all three steps of the run are in the one round"


@pytest.mark.slow
def test_processes_record_the_same_figures_as_the_simulator():
    """With three local steps an epoch's end is in the middle of a round, and the run's end is too."""
    plans = [
        replace(SMALL, driver="processes", timeout_s=PATIENCE_S, **options)
        for options in (
            {"local_steps": 2},
            {"set": {"mixing": "choco", "compressor": "top-k", "consensus_step_size": "0.4"}},
        )
    ]
    for plan, other in zip(plans, run_in_processes(plans, ignore_progress), strict=True):
        ours = run_simulated(replace(plan, driver="simulated"), ignore_progress)
        assert [own_figures(row) for row in other.rows] == [own_figures(row) for row in ours.rows]
        assert (other.traffic.up, other.traffic.down) == (ours.traffic.up, ours.traffic.down)
        d, n = other.spec.d, plan.workers
        assert other.traffic.control_bytes > plan.epochs * 2 * 4 * d * (n - 1), "the mean models are counted there"


@pytest.mark.slow
def test_over_processes_an_asynchronous_run_is_judged_by_the_servers_model():
    plan = replace(SMALL, algorithm="asgd", driver="processes", workers=2, lr=0.1, timeout_s=PATIENCE_S)
    (other,) = run_in_processes([plan], ignore_progress)
    assert other.last.test_accuracy > 0.3
    assert other.last.consensus_distance is None
