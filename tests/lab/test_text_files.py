"""A plain text as windows of characters with those that follow, and the character model that is trained on it."""

from pathlib import Path

import pytest
import torch

from laconic.errors import DatasetError
from laconic.lab.datasets import load
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings

VERSE = "Tyger Tyger, burning bright,\nIn the forests of the night;\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "verse.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_windows_hold_the_text_in_order_and_labels_the_characters_that_follow(tmp_path):
    text = VERSE * 10
    data = load("text", write(tmp_path, text), window=7)
    kinds = sorted(set(text))
    assert data.n_classes == len(kinds)

    def read(rows: torch.Tensor) -> str:
        return "".join(kinds[number] for number in rows.flatten().tolist())

    n_train = int(0.9 * len(text))
    train, test = text[:n_train], text[n_train:]
    for part, inputs, labels in (
        (train, data.train_inputs, data.train_labels), (test, data.test_inputs, data.test_labels),
    ):  # fmt: skip
        assert inputs.shape == labels.shape == ((len(part) - 1) // 7, 7)
        assert read(inputs) == part[: inputs.numel()]
        assert read(labels) == part[1 : inputs.numel() + 1]


@pytest.mark.parametrize(
    ("text", "window", "words"),
    [
        ("a" * 500, 4, "has 1 kinds of characters, must have 2 to 10,000"),
        ("", 4, "has 0 kinds of characters"),
        ("ab" * 50, 10, "has 100 characters, of which a tenth is tested; window=10 must be at most 9"),
        ("ab", 1, "window=1 needs a longer text"),
    ],
)
def test_a_text_that_is_too_short_or_too_uniform_is_refused(tmp_path, text, window, words):
    with pytest.raises(DatasetError, match=words):
        load("text", write(tmp_path, text), window=window)


def settings(path: Path | None, **options: object) -> RunSettings:
    chosen = {
        "algorithm": "sgd", "workers": 2, "dataset": "text", "data": str(path), "window": 8, "model": "transformer",
        "width": 8, "batch_size": 8, "epochs": 3, "lr": 0.5,
    } | options  # fmt: skip
    return RunSettings(**chosen)


def test_a_character_model_learns_and_its_accuracy_is_that_of_characters(tmp_path):
    path = write(tmp_path, VERSE * 20)
    record = run_simulated(settings(path), lambda progress: None)
    losses = [row.train_loss for row in record.rows]
    assert losses[-1] < losses[0]
    experiment = Experiment(settings(path))
    counts = experiment.task.dataset.test_labels.flatten().bincount()
    assert experiment.guess().accuracy == int(counts.max()) / experiment.task.dataset.test_labels.numel()
    scores = experiment.model.eval()(experiment.task.dataset.test_inputs)
    right = (scores.argmax(-1) == experiment.task.dataset.test_labels).float().mean()
    assert experiment.accuracy() == pytest.approx(float(right))


def test_models_and_data_of_two_kinds_are_refused_with_those_that_go_together(tmp_path):
    with pytest.raises(ValueError, match=r"model='mlp': the data set is a text, .*; take transformer"):
        Experiment(settings(write(tmp_path, VERSE * 10), model="mlp"))
    with pytest.raises(ValueError, match=r"model='transformer': the data set is no text, .*; take cnn or linear"):
        Experiment(RunSettings(algorithm="sgd", model="transformer"))
    with pytest.raises(ValueError, match=r"partition='labels' is for examples with one label each; take resample"):
        Experiment(settings(write(tmp_path, VERSE * 10), partition="labels"))
