"""On which device a run computes, and what is refused where it is not there."""

import pytest
import torch

from laconic.errors import OptionError, Spelling
from laconic.lab.runs.agreement import settings_of_command
from laconic.lab.runs.device import Gpus, check_device, device_of_rank, generators_of, gpus_here, local_rank
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.record import Record
from laconic.lab.runs.saved_checks import identity_of
from laconic.lab.runs.settings import RunSettings

NONE = Gpus(count=0, why_none="torch finds no GPU on this machine")


def settings(**options):
    return RunSettings(**{"algorithm": "sgd", "workers": 2, "model": "linear"} | options)


@pytest.mark.parametrize(
    ("text", "ranks", "count", "expected"),
    [
        ("cpu", range(2), 0, ["cpu", "cpu"]),
        ("cuda", range(3), 1, ["cuda:0", "cuda:0", "cuda:0"]),
        ("cuda", range(5), 2, ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]),
        ("cuda:1", range(3), 2, ["cuda:1", "cuda:1", "cuda:1"]),
    ],
)
def test_processes_take_the_gpus_of_their_machine_in_turn(text, ranks, count, expected):
    assert [str(device_of_rank(text, rank, Gpus(count=count))) for rank in ranks] == expected


def test_a_process_takes_its_number_on_its_machine():
    assert local_rank(5, {"LOCAL_RANK": "1"}) == 1
    assert local_rank(5, {}) == local_rank(5, {"LOCAL_RANK": "x"}) == 5


@pytest.mark.parametrize(
    ("text", "gpus", "message"),
    [
        ("cuda", NONE, "--device cuda: torch finds no GPU on this machine; take --device cpu, or leave it out"),
        ("cuda:0", NONE, "--device cuda:0: torch finds no GPU on this machine; take --device cpu, or leave it out"),
        ("cuda:1", Gpus(count=1), "--device cuda:1: there is 1 GPU here, cuda:0; take one of them, or --device cuda"),
        ("cuda:4", Gpus(count=4), "--device cuda:4: there are 4 GPUs here, from cuda:0 to cuda:3; take one of them, or "
         "--device cuda"),
    ],
)  # fmt: skip
def test_a_gpu_that_is_not_there_is_refused_with_what_is_there(text, gpus, message):
    with pytest.raises(OptionError) as caught:
        check_device(text, gpus)
    assert caught.value.spelled(Spelling.FLAG) == message


@pytest.mark.parametrize(
    "text", ["gpu", "CUDA", "cuda:", "cuda:-1", "cuda:one", "cuda:\u0661", "mps", "", "cpu:0", "meta"]
)
def test_what_names_no_device_is_refused(text):
    with pytest.raises(OptionError, match="must be cpu, cuda, or cuda with the number of a GPU"):
        settings(device=text)


def test_the_reason_is_named_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert gpus_here() == Gpus(count=0, why_none=f"torch {torch.__version__} is built for the CPU alone")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert "finds no GPU on this machine, with CUDA_VISIBLE_DEVICES='7'" in gpus_here().why_none


def test_a_model_that_is_moved_keeps_its_optimizer_and_its_figures():
    experiment = Experiment(settings())
    held = [id(one) for group in experiment.inner.param_groups for one in group["params"]]
    before = experiment.loss(0, 0), experiment.accuracy()
    experiment.move_to(torch.device("cpu"))
    assert [id(one) for one in experiment.model.parameters()] == held
    assert (experiment.loss(0, 0), experiment.accuracy()) == before


def test_random_layers_get_the_same_numbers_in_the_same_step():
    experiment = Experiment(settings())
    numbers = []
    for rank, step in ((0, 0), (0, 0), (1, 0), (0, 1)):
        experiment.loss(rank, step)
        numbers.append([int(torch.randint(1 << 30, (), generator=one)) for one in generators_of(torch.device("cpu"))])
    assert numbers[0] == numbers[1]
    assert len({tuple(each) for each in numbers}) == 3


@pytest.fixture
def four_gpus(monkeypatch):
    """What torch says on a machine with four GPUs. Nothing is moved there."""
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


def test_ranks_agree_on_the_kind_of_device_and_not_on_its_number(four_gpus):
    shown = [
        settings_of_command([settings(device=text, driver="processes")], ())
        for text in ("cuda:0", "cuda:3", "cuda", "cpu")
    ]
    assert shown[0] == shown[1] == shown[2]
    assert shown[0]["sgd/device"] == "cuda"
    assert shown[3]["sgd/device"] == "cpu"


def test_a_run_is_not_continued_on_another_device(four_gpus):
    here, there = (identity_of(Experiment(settings(device=text)), ()) for text in ("cpu", "cuda"))
    assert {name for name in here if here[name] != there[name]} == {"device"}


def test_the_record_of_a_run_names_the_gpu(four_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU number {number}")
    assert settings(device="cuda:2").as_data()["device"] == "cuda:2"
    assert Record.machine_of(settings(device="cuda:2"))["gpu"] == "GPU number 2"
    assert "gpu" not in Record.machine_of(settings())
