"""`laconic.planning.choose` takes one of the allowed methods for running ranks, the same on all, and says why."""

import pytest
import torch

import laconic
from laconic.errors import OptionError
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

ALLOWED = ("ec-sgd", "csgd")


def model_of(n: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.Linear(n, 2))


def chosen_twice(rank: int) -> tuple[tuple[str, str], tuple[str, str], int]:
    model = model_of(40)
    before = [parameter.clone() for parameter in model.parameters()]
    allowed = [laconic.ALGORITHMS[name]() for name in ALLOWED]
    chosen = laconic.planning.choose(model, allowed)
    assert all(torch.equal(*both) for both in zip(before, model.parameters(), strict=True))
    assert ("sgd", "allreduce") in chosen.step_s
    assert {name for name, _ in chosen.step_s} == {"sgd", *ALLOWED}
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    with laconic.DistributedOptimizer(inner, chosen.algorithm, model=model, layout=chosen.layout) as opt:
        again = laconic.planning.choose(model, allowed, saved=opt.state_dict())
    assert again.step_s == {}
    return (chosen.algorithm.name, chosen.layout), (again.algorithm.name, again.layout), len(chosen.reason.splitlines())


@pytest.mark.slow
def test_all_ranks_choose_the_same_and_a_run_that_goes_on_takes_what_was_saved():
    found = run_ranks(chosen_twice, 2)
    assert found[0] == found[1]
    chosen, again, n_lines = found[0]
    assert chosen == again
    assert chosen[0] in ("sgd", *ALLOWED)
    assert n_lines == 1


def test_one_worker_takes_plain_sgd():
    chosen = laconic.planning.choose(model_of(4))
    assert (chosen.algorithm.name, chosen.layout) == ("sgd", "allreduce")


def test_what_is_not_to_be_chosen_is_refused_by_name():
    model = model_of(4)
    saved = {"algorithm": "dropsign", "layout": "rank0"}
    for given, words in (
        ({"allowed": []}, "allowed=.*one or more"),
        ({"allowed": ["ec-sgd"]}, "allowed=.*laconic.ECSGD"),
        ({"allowed": [laconic.ECSGD(), laconic.ECSGD()]}, "each method may be there once"),
        ({"layouts": ["dedicated"]}, "layouts=.*must be a list of allreduce"),
        ({"saved": saved}, "saved=.*a state of 'dropsign' on 'rank0' goes on with that method"),
        ({"allowed": laconic.ECSGD()}, "must be a list of methods"),
        ({"allowed": [laconic.LASG()]}, "lasg evaluates each mini-batch at two points, and a trial has no data"),
        ({"layouts": "rank0"}, "must be a list of"),
        ({"saved": 3}, "saved=3 must be a state_dict"),
        ({"timeout_s": 0}, "timeout_s=0 must be above 0"),
        ({"timeout_s": "a"}, "timeout_s='a' must be a number"),
        ({"model": 3}, "model=3 must be a torch.nn.Module"),
        ({"model": torch.nn.Tanh()}, "none of its parameters is trained"),
    ):
        with pytest.raises((OptionError, TypeError, ValueError), match=words):
            laconic.planning.choose(**{"model": model, **given})


def chosen_apart(rank: int) -> list[str]:
    errors = []
    for model, given in (
        (model_of(4 + rank), {}),
        (model_of(4), {"allowed": [laconic.ECSGD() if rank else laconic.CSGD()]}),
        (model_of(4), {"allowed": [] if rank else [laconic.CSGD()]}),
    ):
        with pytest.raises((OptionError, laconic.SetupError)) as caught:
            laconic.planning.choose(model, timeout_s=PATIENCE_S, **given)
        errors.append(str(caught.value))
    return errors


@pytest.mark.slow
def test_ranks_that_choose_for_other_models_or_of_other_methods_are_refused_before_anything_is_measured():
    for errors in run_ranks(chosen_apart, 2):
        for error, words in zip(errors, ("parameter '0.weight'=(4, 4)", "allowed=csgd", "allowed="), strict=True):
            assert words in error
