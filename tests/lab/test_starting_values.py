"""What a command starts a method with trains; the library's defaults stay the papers'."""

import json

import pytest

import laconic
from laconic.lab.algorithms import algorithm_class
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from laconic.lab.starting_values import STARTING_VALUES
from support.command_line import laconic as command

PAPERS = {"compskip": 0.01, "dropsign": 0.006}
LR_OVER_C = {"compskip": 0.02, "dropsign": 0.01}


def test_a_run_starts_with_a_c_that_trains_and_the_library_with_the_papers():
    assert {name for name, own in STARTING_VALUES.items() if own.settings} == PAPERS.keys()
    for name, printed in PAPERS.items():
        own = algorithm_class(name)()
        assert (own.c, own.server_c, own.lr_factor) == (printed, printed, printed)
        started = RunSettings(algorithm=name)
        assert started.method.c == started.method.server_c >= 0.3
        assert started.learning_rate == pytest.approx(LR_OVER_C[name] * started.method.c)
        given = RunSettings(algorithm=name, set={"c": "0.1", "server_c": "0.1"})
        assert (given.method.c, given.method.server_c) == (0.1, 0.1)
        assert given.learning_rate == pytest.approx(LR_OVER_C[name] * 0.1)
        again = started.as_data()
        assert RunSettings(**again).as_data() == again
    assert RunSettings(algorithm="ec-sgd").method == laconic.ECSGD()
    lrs = {name: RunSettings(algorithm=name).learning_rate for name in ("sgd", "ec-sgd", "dist-ef", "signsgd-mv")}
    assert lrs == pytest.approx({"sgd": 0.3, "ec-sgd": 0.3, "dist-ef": 0.03, "signsgd-mv": 0.002})


def test_show_says_what_a_run_starts_with_and_that_the_defaults_are_the_papers():
    claims = json.loads(command("show", "dropsign", "--json", "-").out)["claims"]
    assert claims["laconic run starts with"] == (
        "c=0.5, server_c=0.5, a learning rate of 0.005; the defaults above are the paper's, for large models"
    )


@pytest.mark.nightly
@pytest.mark.parametrize("name", [*PAPERS, "sgd", "ec-sgd", "signsgd-mv", "ssgd-mv", "ssgd-mv-ad"])
def test_on_the_digits_it_reaches_what_a_small_grid_reaches(name):
    reached = {
        factor: run_simulated(RunSettings(algorithm=name, lr=factor * RunSettings(algorithm=name).learning_rate),
                              lambda progress: None).last.test_accuracy
        for factor in (1 / 3, 1, 3)
    }  # fmt: skip
    assert reached[1] > max(reached.values()) - 0.015, reached
