"""`module:function` in the place of a name: data, model, task. What is wrong with one is one line, before training."""

import pytest
import torch

from laconic.errors import OptionError
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from support.own_modules import own_module

GOOD = """
import numpy
import torch
from laconic.lab.tasks import OwnTask

torch.manual_seed(0)
INPUTS = torch.randn(60, 3)
LABELS = (INPUTS[:, 0] > 0).long()


def data(path=None):
    inputs = INPUTS if path is None else INPUTS + 1
    return inputs[:50].numpy(), LABELS[:50].numpy().astype(numpy.float64), inputs[50:], LABELS[50:]


def model(input_shape, n_classes):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], 4), torch.nn.Dropout(), torch.nn.Linear(4, n_classes))


def task(power="2", seed=0):
    net = torch.nn.Linear(3, 1)
    return OwnTask(
        model=net, train=(INPUTS[:50], INPUTS[:50, 1]), test=(INPUTS[50:], INPUTS[50:, 1]),
        loss=lambda net, inputs, targets: ((net(inputs)[:, 0] - targets).abs() ** float(power)).mean(),
        metric=lambda net, inputs, targets: -float((net(inputs)[:, 0] - targets).square().mean()),
    )
"""


def run(**options):
    settings = RunSettings(**{"algorithm": "sgd", "workers": 2, "batch_size": 5, "epochs": 2} | options)
    return run_simulated(settings, lambda progress: None)


def test_data_and_model_of_a_users_own_are_trained(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, GOOD)
    options = {"dataset": f"{own}:data", "model": f"{own}:model", "epochs": 3, "lr": 0.5}
    record = run(**options)
    assert record.spec.names[0] == "0.weight"
    assert record.traffic.rounds == 15
    assert record.rows == run(**options).rows, "initial parameters follow from the seed"
    assert record.rows != run(**options, seed=1).rows
    assert RunSettings(**{"algorithm": "sgd"} | options).title == f"{own}:data, {own}:model"
    assert len(run(**options, examples=20, data=str(tmp_path)).rows) == 3


def test_a_task_of_a_users_own_is_trained_with_its_own_loss_and_judged_by_its_own_figure(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, GOOD)
    record = run(task=f"{own}:task", lr=0.1, epochs=5, partition="fixed")
    begin, last = record.rows[0], record.rows[-1]
    assert begin.metric < last.metric < 0
    assert last.test_accuracy is None
    assert record.summary()["metric"] == last.metric
    data = record.settings.as_data()
    assert data["task"] == f"{own}:task"
    assert "dataset" not in data, "it has its own"
    assert run(task=f"{own}:task", lr=0.1, epochs=5, partition="fixed", task_set={"power": "1"}).rows[-1] != last


WRONG = """
import torch
from laconic.lab.tasks import OwnTask

def nothing(): pass
def not_a_model(): return 3
def six_scores(): return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 6))
def of_vectors(): return torch.nn.Linear(64, 10)
def no_parameters(): return torch.nn.ReLU()
def half_precision(): return torch.nn.Linear(64, 10).half()
def raises(): return {}["gone"]
def takes_more(this): return this
def three(): return 1, 2, 3
def fractions(): return torch.zeros(4, 2), torch.tensor([0.5] * 4), torch.zeros(4, 2), torch.zeros(4)
def rows_differ(): return torch.zeros(4, 2), torch.zeros(3), torch.zeros(4, 2), torch.zeros(4)
value = 5
def bad_loss():
    pair = (torch.zeros(200, 2), torch.zeros(200))
    net = torch.nn.Linear(2, 1)
    return OwnTask(model=net, train=pair, test=pair, loss=lambda m, x, y: 1.0, metric=lambda m, x, y: 0)
"""


def test_what_is_wrong_with_a_function_is_one_line_before_training(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, WRONG)
    (tmp_path / "raises_at_import.py").write_text("1 / 0\n")
    (tmp_path / "imports_nothing.py").write_text("import not_there_at_all\n")
    for option, text, words in (
        ("model", "not_here:model", "there is no module not_here, neither here in .* nor installed"),
        ("model", "mine.py:model", "must have the form module:function, such as mine:model"),
        ("model", "mine:", "must have the form module:function"),
        ("model", "raises_at_import:model", r"raised ZeroDivisionError: .*raises_at_import.py, line 1"),
        ("model", "imports_nothing:model", "No module named 'not_there_at_all'"),
        ("model", f"{own}:six_score", "has no function six_score; it has .*; did you mean six_scores"),
        ("model", f"{own}:value", "has no function value"),
        ("model", f"{own}:nothing", r"returned None \(is its `return` missing\?\); it must return a torch.nn.Module"),
        ("model", f"{own}:not_a_model", "returned an object of class int; it must return a torch.nn.Module"),
        ("model", f"{own}:six_scores", r"scores of shape \(2, 6\) for inputs of shape \(2, 1, 8, 8\); for 10 classes"),
        ("model", f"{own}:of_vectors", r"for inputs of shape \(2, 1, 8, 8\) its model raised RuntimeError"),
        ("model", f"{own}:no_parameters", "a model without parameters to train"),
        ("model", f"{own}:half_precision", "whose parameter weight is not float32 on the CPU"),
        ("model", f"{own}:raises", r"raised KeyError: 'gone' \(.*line 11, in raises"),
        ("model", f"{own}:takes_more", r"takes_more\(this\) is called with \(\): missing a required argument"),
        ("dataset", f"{own}:three", r"returned an object of class tuple; it must return \(train inputs"),
        ("dataset", f"{own}:fractions", "labels must be whole numbers from 0, found 0.5"),
        ("dataset", f"{own}:rows_differ", "train_labels=.* must be int64 of shape"),
        ("dataset", "digitz", "must be one of digits, .*, or module:function of your own; did you mean digits"),
        ("task", f"{own}:bad_loss", "its loss must return a tensor of one number"),
        ("task", f"{own}:raises", "raised KeyError"),
    ):
        with pytest.raises(OptionError, match=f"^{option}=.*{words}") as raised:
            Experiment(RunSettings(algorithm="sgd", **{option: text}))
        assert "\n" not in str(raised.value), text


def test_a_model_is_tried_without_a_trace(tmp_path, monkeypatch):
    own = own_module(
        tmp_path, monkeypatch,
        """
        import torch

        def model(n_classes):
            return torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Dropout(), torch.nn.Linear(64, n_classes)
            )
        """,
    )  # fmt: skip
    torch.manual_seed(5)
    before = torch.get_rng_state()
    made = Experiment(RunSettings(algorithm="sgd", model=f"{own}:model"))
    assert torch.equal(torch.get_rng_state(), before)
    assert int(made.model[1].num_batches_tracked) == 0
    assert made.model.training


def test_functions_are_part_of_what_ranks_and_saved_runs_compare(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, GOOD)
    settings = RunSettings(algorithm="sgd", dataset=f"{own}:data", model=f"{own}:model")
    before = settings.described_functions()
    assert sorted(before) == [f"dataset {own}:data/hash of its file", f"model {own}:model/hash of its file"]
    (tmp_path / f"{own}.py").write_text(GOOD + "# changed\n")
    assert settings.described_functions() != before
    assert RunSettings(algorithm="sgd").described_functions() == {}
