"""Tasks with known constants: what is claimed of the quadratic, and the rates of the theorems."""

import math
import re
import warnings

import pytest
import torch

import laconic
from laconic.errors import OptionError
from laconic.lab import defaults
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.files import columns_of, metrics_text
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.lab.tasks import TASKS, Bounds, Quadratic, Shares
from laconic.lab.tasks.theory import KNOWN, theorem_learning_rate

KINDS = {"noise": 3.0, "disagreement": 10.0, "curvature_range": 0.5}


def quadratic(workers=8, seed=0, **numbers):
    return Quadratic(**numbers).task(Shares(workers=workers, batch_size=1, seed=seed))


def gradient(task, rank, step=0):
    task.model.zero_grad()
    task.loss(rank, step).backward()
    return task.model.x.grad.double().clone()


def settings(**options):
    texts = {key: str(value) for key, value in options.pop("task_set", {}).items()}
    return RunSettings(**{"algorithm": "sgd", "task": "quadratic", "epochs": 1, "task_set": texts} | options)


def test_the_help_names_the_tasks_that_there_are():
    assert sorted(defaults.TASK_NAMES) == sorted(TASKS)


def test_a_quadratic_has_the_constants_and_the_minimum_that_it_claims():
    for workers in (1, 8):
        task = quadratic(workers, **KINDS | {"noise": 0.0})
        x = task.model.x.detach().double()
        assert task.judge().gap == pytest.approx(1.0, rel=1e-5), "f(x_1) - f* = 1"
        eigenvalues = torch.linalg.eigvalsh(task._mean)
        assert float(eigenvalues[0]) == pytest.approx(0.1)
        assert float(eigenvalues[-1]) == pytest.approx(1.0)
        mean = sum(gradient(task, rank) for rank in range(workers)) / workers
        assert torch.allclose(mean, task._mean @ x, atol=1e-4), "the b_n add up to 0, and the A_n to the mean"
        assert task.squared_gradient() == pytest.approx(float(mean.square().sum()), rel=1e-4)
        norms = [float(vector.square().sum()) for vector in task._vectors]
        assert sum(norms) / workers == pytest.approx(100.0 if workers > 1 else 0.0, rel=1e-4)
        with torch.no_grad():
            task.model.x.zero_()
        assert task.judge().gap == task.squared_gradient() == 0.0


def test_workers_of_a_quadratic_without_noise_get_no_warning_of_equal_mini_batches():
    plan = settings(task_set={"rounds": 3}, workers=3, lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_simulated(plan, lambda progress: None)


def test_noise_has_the_variance_that_was_asked_for_and_depends_on_worker_and_step_alone():
    task, quiet = quadratic(**KINDS), quadratic(**KINDS | {"noise": 0.0})
    squares = [
        float((gradient(task, rank, step) - gradient(quiet, rank)).square().sum())
        for rank in range(8) for step in range(50)
    ]  # fmt: skip
    assert sum(squares) / len(squares) == pytest.approx(9.0, rel=0.1)
    assert torch.equal(gradient(task, 3, 7), gradient(task, 3, 7))
    assert not torch.equal(gradient(task, 3, 7), gradient(task, 4, 7))
    assert not torch.equal(quadratic(seed=1).model.x, task.model.x), "the problem follows from the seed"


def test_theory_takes_the_learning_rates_of_the_theorems():
    bounds = Bounds(smoothness=1.0, noise=3.0, disagreement=2.0, compression_error=10.0)
    rho = laconic.Mixing.from_text("ring", 8).rho
    expected = {
        ("sgd", 1): 1 / (1 + 3 * math.sqrt(1024)),
        ("sgd", 8): 1 / (1 + 3 * math.sqrt(1024 / 8)),
        ("asgd", 1): 1 / (1 + 3 * math.sqrt(1024)),
        ("asgd", 4): 1 / (8 + 3 * math.sqrt(4 * 1024)),
        ("ec-sgd", 8): 1 / (2 + 3 * math.sqrt(1024 / 8) + (1024 * 100) ** (1 / 3)),
        ("dsgd", 8): 1 / (1 + 3 * math.sqrt(1024 / 8) + 1024 ** (1 / 3) * (2 * rho / (1 - rho)) ** (2 / 3)),
        ("csgd", 8): 1 / (1 + math.sqrt(1024 * (9 / 8 + 100 * 9 / 8))),
    }
    for (name, workers), expected_lr in expected.items():
        algorithm = RunSettings(algorithm=name, workers=workers).method
        assert theorem_learning_rate(algorithm, bounds, rounds=1024, workers=workers) == pytest.approx(expected_lr), (
            name,
            workers,
        )
    assert {name for name, _ in expected} <= set(KNOWN)


def test_theory_is_refused_by_name_where_no_theorem_or_no_constant_is_known():
    for options, words in (
        ({"algorithm": "dropsign"}, "no theorem of Liu and Zhang gives a rate for dropsign"),
        ({"algorithm": "ec-sgd"}, "needs sigma'"),
        ({"task": "classifier", "model": "linear"}, "L and sigma of the task classifier are not known"),
        ({"local_steps": 2}, "one step of plain SGD to a round"),
        ({"weight_decay": 0.1}, "one step of plain SGD to a round"),
    ):
        with pytest.raises(OptionError, match=words):
            Experiment(settings(lr="theory", **options))


def test_wrong_numbers_and_options_without_use_are_refused():
    for options, words in (
        ({"task_set": {"nois": 1}}, "unknown key 'nois'.*did you mean noise"),
        ({"task_set": {"noise": -1}}, "noise=-1.0 must be in"),
        ({"task_set": {"lowest": 2}}, "lowest=2.0 must be at most highest=1.0"),
        ({"dataset": "mnist"}, "dataset='mnist' is not for task='quadratic'"),
        ({"partition": "fixed"}, "partition='fixed' is for tasks with examples"),
        ({"task": "classifier", "task_set": {"noise": 1}}, "classifier: unknown key 'noise'; known: none"),
        ({"lr": "theorie"}, "lr='theorie' must be a number, above 0"),
    ):
        with pytest.raises(ValueError, match=words):
            settings(**options)
    with pytest.raises(OptionError, match="digits is no text"):
        Experiment(settings(task="language-model"))


def test_a_run_records_gap_and_squared_gradient_and_its_theorem_learning_rate():
    plan = settings(lr="theory", workers=2, epochs=2, task_set={"rounds": 8, "noise": 0.5})
    record = run_simulated(plan, lambda progress: None)
    x = Experiment(plan).task
    assert record.rows[0].test_accuracy is None
    assert record.rows[0].gap > record.rows[1].gap > 0
    summary = record.summary()
    both = [row.mean_squared_gradient for row in record.rows]
    assert summary["mean_squared_gradient"] == pytest.approx(sum(both) / 2)
    assert summary["learning_rate"] == pytest.approx(1 / (1 + 0.5 * math.sqrt(16 / 2)))
    assert plan.as_data()["lr"] == "theory", "a run that goes on finds the rate again"
    assert both[0] < 1.01 * x.squared_gradient(), "from x_1 on"
    header, line = metrics_text(record.rows, columns_of(plan)).split("\r\n")[:2]
    assert header.endswith(",seconds,gap,mean_squared_gradient")
    assert line.endswith(f",{record.rows[0].gap},{both[0]}")
    assert "gap" not in columns_of(settings(task="classifier"))


def test_a_run_whose_gap_grows_has_diverged_and_one_that_closes_it_has_not():
    for lr, words in ((2.5, "its gap, .* is more than 10 times that of the start, 1"), (0.5, None)):
        record = run_simulated(settings(lr=lr, workers=1, task_set={"rounds": 20}), lambda progress: None)
        assert record.summary()["start_gap"] == pytest.approx(1.0, rel=1e-5)
        if words is None:
            assert record.why_diverged is None
        else:
            assert re.match(words, record.why_diverged)


def test_gradient_descent_as_its_theorem_says_keeps_its_bound():
    record = run_simulated(settings(lr="theory", workers=1, epochs=1), lambda progress: None)
    assert record.summary()["mean_squared_gradient"] <= 2 / 256, "1.1.1: 2 L (f(x_1) - f*) / T"
