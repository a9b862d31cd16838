"""Checkpoints as users write them: rank 0 saves and all load, other numbers of ranks, torch's functions, prefixes."""

import pytest
import torch

from support.checkpoint_tasks import NAMES, SAVED, N, act
from support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def by_rank():
    return run_ranks(act, N)


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_where_rank_0_alone_saved_and_all_ranks_load(name, by_rank):
    for results in by_rank:
        result = results["rank 0"][name]
        assert result["round"] == SAVED
        assert result["apart"] == 0 or name == "dsgd"


@pytest.mark.parametrize("name", NAMES)
def test_saving_and_loading_on_rank_0_state_once_what_is_missing_where_anything_is(name, by_rank):
    keeps = {
        "ssgd-mv": "residual",
        "ec-sgd": "residual",
        "compskip": "momentum and the residual",
        "sasg": "residual of",
        "dsgd": "model",
    }
    result = by_rank[0]["rank 0"][name]
    if name in ("sgd", "sgd-server"):
        assert result["saving"] == result["loading"] == []
    else:
        (on_saving,), (on_loading,) = result["saving"], result["loading"]
        assert f"the {keeps.get(name, '')}" in on_saving
        assert "of ranks 1, 2" in on_saving
        assert "opt.gather_state()" in on_saving
        assert f"{name} goes on at round {SAVED}" in on_loading
        assert "ranks 1, 2" in on_loading
    assert not by_rank[1]["rank 0"][name]["saving"]


@pytest.mark.parametrize("name", [*(name for name in NAMES), "local steps", "sharded"])
def test_a_state_gathered_on_rank_0_goes_on_with_the_bits_of_a_straight_run(name, by_rank):
    for results in by_rank:
        straight, resumed, silent = results["gathered"][name]
        assert torch.equal(straight, resumed)
        if results is by_rank[0]:
            assert silent


@pytest.mark.parametrize("n", [2, 1])
def test_a_state_of_three_ranks_goes_on_with_fewer_and_no_residual_is_lost(n, by_rank):
    for results in by_rank[:n]:
        result = results["fewer"][n]
        torch.testing.assert_close(result["after"], result["before"])
        assert result["before"].any()
        assert (result["apart"], result["round"]) == (0, SAVED + 2)


def test_files_of_two_ranks_go_on_with_three_of_which_the_new_one_has_no_residual(by_rank):
    assert [results["more"] for results in by_rank] == [(True, 0.0)] * N


@pytest.mark.parametrize("name", ["sgd", "ec-sgd"])
def test_an_older_file_on_one_rank_is_refused_by_all_with_both_rounds_and_nothing_changes(name, by_rank):
    for results in by_rank:
        message, unchanged = results["older"][name]
        assert "rank 0 loads the state of round 3 and rank 1 that of round 2" in message
        assert unchanged


@pytest.mark.parametrize(("name", "how"), [(name, how) for name in ("sgd", "ec-sgd") for how in ("own", "whole")]
                         + [("sasg", "own")])  # fmt: skip
def test_torchs_checkpoint_functions_carry_the_state_and_make_no_round(name, how, by_rank):
    for results in by_rank:
        assert results["torch"][name, how] == {"hidden": 0, "rounds": SAVED, "came back": True, "apart": 0}


@pytest.mark.parametrize("name", ["sgd", "ec-sgd"])
def test_a_state_that_the_inner_optimizer_loads_is_taken_up_at_wrapping(name, by_rank):
    assert [results["before wrapping"][name] for results in by_rank] == [(True, SAVED, True)] * N


@pytest.mark.parametrize("name", ["sgd", "sgd-server"])
def test_weights_loaded_on_one_rank_alone_are_refused_when_training_begins_with_the_rank(name, by_rank):
    for results in by_rank:
        assert "the parameters of rank 1 differ from rank 0's" in results["one"][name]


@pytest.mark.parametrize(
    "each", [("sgd", "auto"), ("sgd-server", "rank0"), ("sgd-server", "dedicated"), ("asgd", "dedicated")]
)
def test_weights_loaded_after_wrapping_count_also_where_a_server_holds_the_model(each, by_rank):
    for before, after in (results["on all"][each] for results in by_rank):
        if each[0] == "asgd":  # in what order its gradients come is open
            torch.testing.assert_close(before, after, rtol=0.1, atol=0.5)
        else:
            assert torch.equal(before, after)


def test_an_asynchronous_server_shows_its_model_and_goes_on_from_rank_0s_state(by_rank):
    assert [results["asgd"] for results in by_rank] == [(True, SAVED + 2, True)] * N


def test_names_of_wrapped_and_compiled_models_are_those_of_the_model(by_rank):
    for results in by_rank:
        name, came_back = results["prefixed"]
        assert name == "module.0.weight"  # that of torch.compile is looked through
        assert came_back


def test_processes_go_on_from_a_simulation_and_a_simulation_from_processes(by_rank):
    assert [results["simulation"] for results in by_rank] == [((True, SAVED), (True, SAVED + 2))] * N
