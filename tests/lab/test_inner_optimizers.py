"""The inner optimizer by name, and a user's own."""

import pytest
import torch

from laconic.lab import defaults
from laconic.lab.inner_optimizers import INNER, InnerMuon, MatricesByMuon
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.settings import RunSettings
from support.own_modules import own_module


def settings(**options):
    return RunSettings(**{"algorithm": "sgd", "model": "linear", "workers": 2, "epochs": 1} | options)


def inner(**options):
    return Experiment(settings(**options)).inner


def test_the_help_names_the_optimizers_that_there_are():
    assert sorted(defaults.INNER_NAMES) == sorted(INNER)


def test_a_name_and_its_numbers_make_the_optimizer():
    made = inner(inner_set={"momentum": "0.9", "nesterov": "true"}, weight_decay=0.1, lr=0.3)
    assert type(made) is torch.optim.SGD
    assert {name: made.defaults[name] for name in ("lr", "momentum", "nesterov", "weight_decay")} == {
        "lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1,
    }  # fmt: skip
    made = inner(inner="adamw", inner_set={"beta1": "0.8"})
    assert type(made) is torch.optim.AdamW
    assert (made.defaults["betas"], made.defaults["lr"], made.defaults["weight_decay"]) == ((0.8, 0.999), 1e-3, 0.0)
    assert inner(inner="adamw", algorithm="signsgd-mv").defaults["lr"] == 1e-3, "the method's factor is for plain SGD"


def test_a_run_keeps_what_was_asked_for_and_old_runs_have_no_new_key():
    data = settings(inner="adamw").as_data()
    assert data["inner"] == "adamw"
    assert data["inner_set"] == {"beta1": "0.9", "beta2": "0.999", "eps": "1e-08"}
    assert settings(**{**data, "set": {}}).as_data() == data
    assert not {"inner", "inner_set", "task", "task_set"} & settings().as_data().keys()


def test_momentum_moves_a_run_as_torch_does_by_hand():
    plan = settings(inner_set={"momentum": "0.9"}, workers=1, lr=0.1)
    made = Experiment(plan)
    plain = torch.optim.SGD(made.model.parameters(), lr=0.1, momentum=0.9)
    for step in range(made.steps):
        plain.zero_grad()
        made.loss(0, step).backward()
        plain.step()
    assert run_simulated(plan, lambda progress: None).last.test_accuracy == made.accuracy()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon")
def test_muon_steps_matrices_and_adamw_the_rest_whatever_state_is_put_into_it():
    torch.manual_seed(0)
    one, other = (torch.nn.Linear(3, 4) for _ in range(2))
    other.load_state_dict(one.state_dict())
    made = InnerMuon().made(one, 0.01, 0.0)
    assert isinstance(made, MatricesByMuon)
    apart = [
        torch.optim.Muon([other.weight], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([other.bias], lr=0.01, weight_decay=0.0),
    ]
    for step in range(3):
        for model in (one, other):
            model.zero_grad()
            model(torch.ones(2, 3) + step).square().sum().backward()
        if step == 1:  # as a checkpoint, and as a simulation with local steps
            made.load_state_dict(made.state_dict())
            made.state = dict(made.state)
        for each in (made, *apart):
            each.step()
    assert torch.equal(one.weight, other.weight)
    assert torch.equal(one.bias, other.bias)


def test_what_does_not_go_together_is_refused_by_name(tmp_path, monkeypatch):
    own = own_module(
        tmp_path, monkeypatch,
        """
        import torch
        def lbfgs(parameters): return torch.optim.LBFGS(parameters)
        def half(parameters, lr): return torch.optim.SGD(parameters[:1], lr=lr)
        def number(parameters): return 3
        """,
    )  # fmt: skip
    for options, words in (
        ({"inner": "adam"}, "inner='adam' must be one of sgd, adamw, muon, or module:function"),
        ({"inner_set": {"beta1": "0.5"}}, "sgd: unknown key 'beta1'; known: momentum, nesterov"),
        ({"inner_set": {"nesterov": "true"}}, "needs a momentum above 0"),
        ({"inner_set": {"momentum": "0.9"}, "algorithm": "dropsign"}, r"dropsign has momentum of its own \(0.9\)"),
        (
            {"inner": "muon", "task": "quadratic", "model": "mlp"},
            "inner='muon' is for matrices, and the model has none"
            if hasattr(torch.optim, "Muon")
            else "has no Muon, which came with torch 2.9; take adamw",
        ),
        (
            {"inner": "adamw", "task": "quadratic", "model": "mlp", "lr": "theory"},
            "one step of plain SGD to a round; leave inner",
        ),
        ({"inner": f"{own}:lbfgs"}, "LBFGS evaluates its closure several times"),
        ({"inner": f"{own}:half"}, "returned an optimizer of other parameters"),
        ({"inner": f"{own}:number"}, "returned an object of class int; it must return a torch.optim.Optimizer"),
        ({"inner": f"{own}:half", "weight_decay": 0.1}, "weight_decay=0.1 is for the optimizers by name"),
    ):
        with pytest.raises(ValueError, match=words):
            Experiment(settings(**options))


def test_an_optimizer_of_a_users_own_steps(tmp_path, monkeypatch):
    own = own_module(
        tmp_path, monkeypatch,
        """
        import torch
        def rms(parameters, lr, alpha="0.9"): return torch.optim.RMSprop(parameters, lr=lr, alpha=float(alpha))
        """,
    )  # fmt: skip
    made = inner(inner=f"{own}:rms", inner_set={"alpha": "0.5"}, lr=0.01)
    assert (made.defaults["alpha"], made.defaults["lr"]) == (0.5, 0.01)
    record = run_simulated(settings(inner=f"{own}:rms", lr=0.01), lambda progress: None)
    assert record.last.test_accuracy > 0.8
