""" "auto" in place of a method: chosen in the first step, the same on all ranks, or taken from a state."""

import gc

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import laconic
from laconic.training.state_dict import KEY
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

ALLOWED = (laconic.CSGD(), laconic.ECSGD())


def model_of(n=20):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(n, n), torch.nn.Linear(n, 2))


def optimizer_of(model, method, **options):
    return laconic.DistributedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), method, model=model, **options)


def train(model, opt, rank, steps):
    for step in steps:
        torch.manual_seed(10 * step + rank)
        opt.zero_grad()
        model(torch.randn(4, 20)).square().mean().backward()
        opt.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def refusal_of(function):
    with pytest.raises((ValueError, TypeError)) as caught:
        function()
    return str(caught.value)


def through_the_optimizer(rank, found):
    model, seen = model_of(), []
    opt = optimizer_of(model, "auto", allowed=ALLOWED)
    laconic.observe(opt, seen.append)
    assert (opt.algorithm.name, opt.automatic.chosen) == ("sgd", None)
    values = train(model, opt, rank, range(3))
    chosen = opt.automatic.chosen
    found["chosen"] = (chosen.algorithm.name, chosen.layout, chosen.reason)
    found["made with it"] = opt.driver.layout.name == chosen.layout and opt.algorithm == chosen.algorithm
    found["observed"] = [stats.round for stats in seen]
    found["counted"] = opt.traffic.control_bytes > chosen.sent_bytes > 0
    gc.collect()
    found["optimizers"] = sum(type(each) is laconic.DistributedOptimizer for each in gc.get_objects())
    other = {"csgd": laconic.ECSGD}.get(chosen.algorithm.name, laconic.CSGD)()
    state = saved_by(other, rank)[0]
    found["another choice"] = refusal_of(lambda: opt.load_state_dict(state))
    opt.close()
    given = model_of()
    with optimizer_of(given, chosen.algorithm, layout=chosen.layout) as opt:
        found["equal"] = torch.equal(values, train(given, opt, rank, range(3)))


def saved_by(method, rank):
    """A state after three steps on rank 0 as the server, the parameters then, and those after two more steps."""
    model = model_of()
    with optimizer_of(model, method, layout="rank0") as opt:
        train(model, opt, rank, range(3))
        state, parameters = opt.gather_state(), {name: each.clone() for name, each in model.state_dict().items()}
        return state, parameters, train(model, opt, rank, range(3, 5))


def through_a_state(rank, found):
    state, parameters, undisturbed = saved_by(laconic.ECSGD(), rank)
    model = model_of()
    with optimizer_of(model, "auto", allowed=[laconic.CSGD()]) as opt:
        found["not allowed"] = refusal_of(lambda: opt.load_state_dict(state))
        found["still free"] = opt.automatic.chosen is None and opt.undecided is not None
        found["ranks differ"] = refusal_of(lambda: opt.load_state_dict({} if rank else opt.state_dict()))
    for loaded_before in (False, True):
        model = model_of()
        model.load_state_dict(parameters)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        if loaded_before:
            inner.load_state_dict({key: value for key, value in state.items() if key != KEY})
        with laconic.DistributedOptimizer(inner, "auto", model=model, allowed=ALLOWED) as opt:
            if not loaded_before:
                opt.load_state_dict(state)
            chosen = opt.automatic.chosen
            found[f"taken up, {loaded_before}"] = (chosen.algorithm.name, chosen.layout, chosen.sent_bytes)
            found[f"goes on, {loaded_before}"] = torch.equal(undisturbed, train(model, opt, rank, range(3, 5)))


def through_an_attachment(rank, found, folder):
    ddp = DistributedDataParallel(model_of())
    handle, inner = laconic.ddp.attach(ddp, "auto", allowed=ALLOWED), torch.optim.SGD(ddp.parameters(), lr=0.1)
    assert handle.automatic.chosen is None
    values = train(ddp, inner, rank, range(3))
    chosen = handle.automatic.chosen
    found["chosen"] = (chosen.algorithm.name, chosen.layout, handle.algorithm.name, handle.traffic.rounds)
    laconic.checkpoint.save(folder, handle, step=3)
    undisturbed = train(ddp, inner, rank, range(3, 5))
    again = DistributedDataParallel(model_of())
    handle, inner = laconic.ddp.attach(again, "auto", allowed=ALLOWED), torch.optim.SGD(again.parameters(), lr=0.1)
    laconic.checkpoint.load(folder, handle)
    loaded = torch.cat([parameter.detach().reshape(-1) for parameter in again.parameters()])
    after = handle.automatic.chosen
    found["taken up"] = (after.algorithm.name, after.layout, after.step_s == {}, torch.equal(values, loaded))
    found["goes on"] = torch.equal(undisturbed, train(again, inner, rank, range(3, 5)))


def unlike_ranks(rank):
    model = model_of()
    return [
        refusal_of(lambda: optimizer_of(model, laconic.SGD() if rank else "auto", timeout_s=PATIENCE_S)),
        refusal_of(lambda: optimizer_of(model, "auto", allowed=ALLOWED[rank:], timeout_s=PATIENCE_S)),
        refusal_of(lambda: optimizer_of(model, "auto", allowed=[] if rank else None, timeout_s=PATIENCE_S)),
    ]


def everything(rank, folder):
    found = {"optimizer": {}, "state": {}, "attached": {}, "unlike": unlike_ranks(rank)}
    through_the_optimizer(rank, found["optimizer"])
    through_a_state(rank, found["state"])
    through_an_attachment(rank, found["attached"], folder)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What both ranks found; all runs are in one pair of ranks."""
    return run_ranks(everything, 2, str(tmp_path_factory.mktemp("checkpoints")))


@pytest.mark.slow
def test_the_earliest_step_chooses_the_same_on_all_ranks_and_trains_as_if_it_had_been_given(ranks):
    one, other = (found["optimizer"] for found in ranks)
    assert one["chosen"] == other["chosen"]
    assert one["chosen"][0] in ("sgd", "csgd", "ec-sgd")
    assert len(one["chosen"][2].splitlines()) == 1
    for found in (one, other):
        assert found["made with it"]
        assert found["equal"]
        assert found["observed"] == [0, 1, 2]
        assert found["counted"]


@pytest.mark.slow
def test_what_was_made_to_measure_and_to_try_is_gone_afterwards(ranks):
    assert [found["optimizer"]["optimizers"] for found in ranks] == [1, 1]


@pytest.mark.slow
def test_a_state_of_another_choice_is_refused_once_a_method_is_chosen(ranks):
    for found in ranks:
        assert "was chosen here already; load a state before the first step" in found["optimizer"]["another choice"]


@pytest.mark.slow
def test_a_state_gives_its_method_and_layout_and_nothing_is_measured(ranks):
    for found in (each["state"] for each in ranks):
        for loaded_before in (False, True):
            assert found[f"taken up, {loaded_before}"] == ("ec-sgd", "rank0", 0)
            assert found[f"goes on, {loaded_before}"]


@pytest.mark.slow
def test_a_state_of_a_method_that_is_not_allowed_is_refused_by_name_and_leaves_the_choice_open(ranks):
    for found in (each["state"] for each in ranks):
        assert "a state of 'ec-sgd' on 'rank0' goes on with that method; allow it" in found["not allowed"]
        assert found["still free"]
        assert "rank 1" in found["ranks differ"]


@pytest.mark.slow
def test_the_earliest_backward_pass_of_an_attached_model_chooses_and_a_checkpoint_goes_on_with_it(ranks):
    one, other = (found["attached"] for found in ranks)
    assert one == other
    name, layout, carried, rounds = one["chosen"]
    assert (carried, rounds) == (name, 3)
    assert one["taken up"] == (name, layout, True, True)
    assert one["goes on"]


@pytest.mark.slow
def test_ranks_that_were_given_other_choices_are_refused_when_they_are_set_up(ranks):
    for given, lists, refused in (each["unlike"] for each in ranks):
        assert "algorithm=auto, of sgd, csgd, ec-sgd" in given
        assert "algorithm=auto, of csgd, ec-sgd" in lists
        assert "one or more" in refused


def test_what_no_choice_can_be_made_of_is_refused_before_ranks_meet():
    model = model_of()
    for given, words in (
        ({"allowed": []}, "allowed=.*one or more"),
        ({"allowed": ["ec-sgd"]}, "allowed=.*laconic.ECSGD"),
        ({"allowed": [laconic.LASG()]}, "lasg evaluates each mini-batch at two points"),
        ({"allowed": [laconic.ECSGD(), laconic.ECSGD()]}, "each method may be there once"),
        ({"layout": "dedicated"}, "layout='dedicated': its last rank trains nothing"),
        ({"layout": "rank1"}, "must be a list of allreduce"),
        ({"local_steps": 0}, "local_steps=0 must be at least 1"),
        ({"nodes": 2}, "nodes=2: a trial has one worker on each rank"),
        ({"clients_per_round": 2}, "clients_per_round=2: a trial has one worker on each rank"),
        ({"algorithm": laconic.SGD(), "allowed": ALLOWED}, "allowed: the method is given"),
        ({"algorithm": "fastest"}, "algorithm='fastest' must be an algorithm such as .*, or \"auto\""),
    ):
        options = {"algorithm": "auto", **given}
        with pytest.raises((ValueError, TypeError), match=words):
            optimizer_of(model, options.pop("algorithm"), **options)


def test_an_attachment_does_not_choose_what_its_hook_cannot_carry():
    model = model_of()
    for given, words in (
        ({"allowed": [laconic.ECSGD(), laconic.SSGDMV()]}, "cannot carry ssgd-mv"),
        ({"allowed": [laconic.ASGD()]}, "asgd does not go with DistributedDataParallel"),
        ({"allowed": []}, "one or more"),
        ({"nodes": 2}, "nodes=2"),
        ({"method": laconic.SGD(), "allowed": ALLOWED}, "allowed: the method is given"),
        ({"method": "fastest"}, "method='fastest' must be an algorithm such as .*, or \"auto\""),
    ):
        options = {"method": "auto", **given}
        with pytest.raises((ValueError, TypeError), match=words):
            laconic.ddp.attach(model, options.pop("method"), **options)


def test_one_worker_without_a_wrapper_chooses_nothing():
    handle = laconic.ddp.attach(model_of(), "auto")
    assert handle.algorithm.name == "sgd"
    assert handle.traffic.rounds == 0
