"""Whole runs of the command on a GPU, beside the same on the CPU. Only where there is a GPU."""

import json

import pytest

from support.command_line import laconic

QUICK = ("--model", "linear", "--batch-size", "90", "--workers", "3")


def figures(tmp_path, name, *options, epochs="2"):
    ended = laconic("run", "-a", name, *QUICK, "--epochs", epochs, *options, "--json", str(tmp_path / "figures.json"))
    assert ended.code == 0, ended.err
    return json.loads((tmp_path / "figures.json").read_text())["runs"][0]


@pytest.mark.parametrize("name", ["sgd", "ec-sgd", "ssgd-mv", "dsgd"])
def test_a_simulated_run_has_the_figures_of_one_on_the_cpu(tmp_path, name):
    here, there = (figures(tmp_path, name, "--device", text) for text in ("cpu", "cuda"))
    assert there["traffic"] == here["traffic"]
    assert there["train_loss"] == pytest.approx(here["train_loss"], rel=1e-2)
    assert there["test_accuracy"] == pytest.approx(here["test_accuracy"], abs=0.02)


def test_several_processes_share_one_gpu(tmp_path):
    here, there = (figures(tmp_path, "ec-sgd", "--device", text, "--driver", "processes") for text in ("cpu", "cuda:0"))
    assert there["test_accuracy"] == pytest.approx(here["test_accuracy"], abs=0.02)


def test_a_run_on_a_gpu_goes_on_from_what_it_has_saved(tmp_path):
    out = ("--device", "cuda", "--out", str(tmp_path / "out"))
    straight = figures(tmp_path, "ec-sgd", "--device", "cuda", epochs="4")
    figures(tmp_path, "ec-sgd", *out, "--save-every", "2")
    again = figures(tmp_path, "ec-sgd", *out, "--resume", epochs="4")
    assert again["traffic"] == straight["traffic"]
    assert again["test_accuracy"] == pytest.approx(straight["test_accuracy"], abs=0.02)
