"""A data set of its own for each worker, as even workers with one and odd ones with another."""

import pytest
import torch

from laconic.errors import OptionError
from laconic.lab.datasets.mixed import data_of_workers
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from support.own_modules import own_module

COLOR = """
import torch

def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    inputs = torch.randn(60, 3, 12, 10, generator=generator) + labels.float()[:, None, None, None]
    return inputs[:40], labels[:40], inputs[40:], labels[40:]
"""


def settings(own, **options):
    data = {"even": "digits", "odd": f"{own}:data"}
    base = {"algorithm": "sgd", "model": "linear", "workers": 4, "batch_size": 5, "epochs": 1, "worker_data": data}
    return RunSettings(**base | options)


def test_each_worker_has_examples_of_its_own_set_alone_in_one_shape(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, COLOR)
    task = Experiment(settings(own)).task
    assert task.dataset.input_shape == (3, 12, 10)
    assert task.dataset.n_classes == 10
    n_digits = len(task.dataset.train_labels) - 40
    for rank, shard in enumerate(task.partition.shards):
        assert bool(((shard < n_digits) == (rank % 2 == 0)).all())
    assert sorted(torch.cat(task.partition.shards).tolist()) == list(range(n_digits + 40)), "each example once"
    digit = task.dataset.train_inputs[0]
    assert torch.equal(digit[0], digit[1]), "gray is three equal channels"
    black = task.dataset.train_inputs[:n_digits].min()
    margins = torch.ones(12, 10, dtype=torch.bool)
    margins[2:10, 1:9] = False
    assert bool((digit[:, margins] == black).all())


def test_the_accuracy_is_the_mean_over_the_test_sets(tmp_path, monkeypatch):
    own = own_module(tmp_path, monkeypatch, COLOR)
    task = Experiment(settings(own)).task
    with torch.no_grad():
        for parameter in task.model.parameters():
            parameter.zero_()
        task.model.scores.bias[0] = 1  # answers 0 to everything
    labels = task.dataset.test_labels
    shares = [float((part == 0).float().mean()) for part in (labels[:-20], labels[-20:])]
    assert task.judge().accuracy == pytest.approx(sum(shares) / 2)
    record = run_simulated(settings(own), lambda progress: None)
    assert record.settings.title == f"digits and {own}, linear"
    assert "dataset" not in record.settings.as_data()


def test_rules_that_omit_or_double_a_worker_are_refused():
    assert data_of_workers({"0-2": "a", "3": "b"}, 4) == ["a", "a", "a", "b"]
    for rules, words in (
        ({"even": "a"}, "worker 1 has no data set; add 1=NAME:PATH"),
        ({"even": "a", "0-3": "b"}, "worker 0 has a already"),
        ({"0-4": "a"}, "must be even, odd, a rank or ranks such as 0-4, of 0 to 3"),
        ({"evn": "a"}, "must be even, odd"),
    ):
        with pytest.raises(OptionError, match=words):
            data_of_workers(rules, 4)
    for options, words in (
        ({"partition": "fixed"}, "partition='fixed' does not go with worker_data"),
        ({"data": "x"}, "data='x' does not go with worker_data"),
        ({"worker_data": {"0-3": "digitz"}}, "'digitz' must be one of .*did you mean digits"),
    ):
        with pytest.raises(OptionError, match=words):
            Experiment(settings("unused", **options))
