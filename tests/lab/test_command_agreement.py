"""What the ranks of a command agree on before it trains: its options, and the examples that each has read."""

from dataclasses import replace

import pytest

from laconic.lab.runs.agreement import agree_on_data, agree_on_plans, refusals_of_command_shown
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.settings import RunSettings
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]

OPTIONS = {
    "batch_size": 16, "epochs": 2, "partition": "fixed", "local_steps": 2, "weight_decay": 0.1, "seed": 1,
    "lr_schedule": "cosine", "model": "linear", "layout": "rank0",
}  # fmt: skip


def settings(**options):
    return RunSettings(**{"algorithm": "sgd", "workers": 2, "driver": "processes"} | options)


def error_of(task, *arguments):
    try:
        task(*arguments, PATIENCE_S)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def experiment(rank, change=None):
    made = Experiment(settings())
    if rank == 1 and change is not None:
        dataset = made.task.dataset
        if change == "values":
            inputs = dataset.train_inputs.clone()
            inputs[5] += 1
            made.task.dataset = replace(dataset, train_inputs=inputs)
        else:
            made.task.dataset = replace(
                dataset, train_inputs=dataset.train_inputs[:-1], train_labels=dataset.train_labels[:-1]
            )
    return made


def agree_on_everything(rank, folder):
    found = {}
    for name, value in OPTIONS.items():
        found[name] = error_of(agree_on_plans, [settings(**{name: value} if rank == 1 else {})], ())
    plans = [settings(), settings(algorithm="signsgd-mv")]
    found["algorithms"] = error_of(agree_on_plans, plans[: 2 - rank], ())
    odd = [settings(algorithm="compskip", set={"keep": "0.4"} if rank == 1 else {})]
    found["hyperparameter"] = error_of(agree_on_plans, odd, ())
    file = folder / f"{rank}" / "mine.py"
    file.parent.mkdir()
    file.write_text(f"ODD = {rank}\n")
    found["file"] = error_of(agree_on_plans, [settings()], [str(file)])
    own = settings(threads=1 + rank, timeout_s=60.0 + rank)
    found["own"] = error_of(agree_on_plans, [own], ())
    for change in (None, "values", "number"):
        found["data", change] = error_of(agree_on_data, experiment(rank, change))
    try:
        with refusals_of_command_shown():
            data = experiment(rank) if rank == 0 else Experiment(settings(dataset="mnist", data="/no/such/folder"))
        agree_on_data(data, PATIENCE_S)
    except Exception as error:
        found["no data"] = f"{type(error).__name__}: {error}"
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return run_ranks(agree_on_everything, 2, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_differs_is_named_with_both_values(name, seen):
    usual = getattr(settings(), name)
    for found in seen:
        assert f"rank 0 has {name}={usual}, rank 1 has {name}={OPTIONS[name]} (sgd)" in found[name], found[name]


def test_other_methods_hyperparameters_and_files_of_methods_are_named(seen):
    for found in seen:
        assert "rank 0 has algorithms=sgd, signsgd-mv, rank 1 has algorithms=sgd" in found["algorithms"]
        assert "rank 1 has keep=0.4 (compskip)" in found["hyperparameter"]
        assert "rank 1 has hash of file 0=" in found["file"]
        assert found["file"].endswith("(--load mine.py)")


def test_what_each_rank_has_for_itself_may_differ(seen):
    for found in seen:
        assert (found["own"], found["data", None]) == ("nothing", "nothing")


def test_other_examples_and_other_numbers_of_them_are_named(seen):
    for found in seen:
        assert "rank 0 has hash of the values=" in found["data", "values"]
        assert found["data", "values"].endswith("(train examples)")
        assert "rank 0 has number of examples=" in found["data", "number"]


def test_a_rank_without_the_data_stops_the_others_at_once_with_its_error(seen):
    of_others, own = (found["no data"] for found in seen)
    assert own.startswith(("DatasetError: ", "DataOptionError: ")), own
    assert (
        of_others == f"SetupError: rank 1 refused its own arguments (to begin its run), so this rank stops too: {own}"
    )
