"""Rounds without a break, and half of them, a save, new objects, a load and the others, must end with the same bits."""

import io
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist

import laconic
from support import methods, optimizers, small_model
from support.deadlines import PATIENCE_S
from support.ranks import run_ranks

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 3
VANILLA = methods.in_step_with_layouts(N)
WITH_ADAM = [("sgd", "allreduce"), ("compskip", "sharded"), ("sgd-server", "rank0"), ("dist-ef", "dedicated")]
MODEL_THEN_STATE, STATE_THEN_MODEL = "model first", "model last"  # the two orders in which users load
LOCAL = [("sgd-model", "allreduce"), ("sgd-model", "dedicated")]
CASES = (
    [(name, layout, "sgd", MODEL_THEN_STATE) for name, layout in VANILLA]
    + [(name, layout, "adam", STATE_THEN_MODEL) for name, layout in WITH_ADAM]
    + [(name, layout, "local steps", order) for name, layout in LOCAL for order in (MODEL_THEN_STATE, STATE_THEN_MODEL)]
)
LAYOUT_OF = dict(VANILLA)  # the last one that a method admits; the others are tried at night
EVERY_CASE = [
    pytest.param(case, marks=[] if case[2] != "sgd" or LAYOUT_OF[case[0]] == case[1] else pytest.mark.nightly)
    for case in CASES
]
REFUSED = ("algorithm", "seed", "parameters", "names", "plain")
TAKEN = ("rank", "layout")  # what the ranks put right together


def made(net, name, layout, inner, **settings):
    """The optimizer of a case; "local steps" is Adam with three steps to an exchange."""
    algorithm = methods.with_test_settings(name)
    if inner == "local steps":
        settings |= {"local_steps": 3}
    inside = optimizers.INNER["sgd" if inner == "sgd" else "adam"](net.parameters())
    settings = {"seed": 5, "timeout_s": PATIENCE_S, "model": net} | settings
    return laconic.DistributedOptimizer(inside, algorithm, layout=layout, **settings)


def half_of(case):
    """Steps before the save, and as many after it: more where ranks skip after 10, or take steps of their own."""
    name, _, inner, _ = case
    return 10 if inner == "local steps" or hasattr(laconic.ALGORITHMS[name], "max_delay") else 5


def train(opt, net, rank, rounds):
    """Steps with these numbers; the learning rate is halved some times."""
    for round_ in rounds:
        if round_ in (4, 7, 14):
            opt.param_groups[0]["lr"] /= 2
        optimizers.one_step(opt, net, rank, round_)


def through_a_file(*states):
    """The states as another process would load them."""
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def interrupted(rank, case):
    """Parameters and traffic of a straight run and of one that was saved and loaded half-way."""
    (name, layout, inner, order), n_steps = case, half_of(case)
    net = small_model.net()
    opt = made(net, name, layout, inner)
    train(opt, net, rank, range(2 * n_steps))
    straight = small_model.values(net), opt.traffic.as_data()
    net = small_model.net()
    opt = made(net, name, layout, inner)
    train(opt, net, rank, range(n_steps))
    model_state, state = through_a_file(net.state_dict(), opt.state_dict())
    net = torch.nn.Sequential(torch.nn.Linear(6, 11), torch.nn.Tanh(), torch.nn.Linear(11, 3))
    if order == MODEL_THEN_STATE:
        net.load_state_dict(model_state)
    opt = made(net, name, layout, inner)
    if order == STATE_THEN_MODEL:
        net.load_state_dict(model_state)
    opt.load_state_dict(state)
    train(opt, net, rank, range(n_steps, 2 * n_steps))
    return straight, (small_model.values(net), opt.traffic.as_data())


def used_only_before(rank):
    """A layer that is used before the save, and by no rank after it: the saved set is no longer that of the ranks."""
    ends = []
    for resumes in (False, True):
        net = optimizers.Branches()
        opt = made(net, "sgd", "allreduce", "sgd")
        for round_ in range(6):
            if round_ == 3 and resumes:
                model_state, state = through_a_file(net.state_dict(), opt.state_dict())
                net = optimizers.Branches()
                net.load_state_dict(model_state)
                opt = made(net, "sgd", "allreduce", "sgd")
                opt.load_state_dict(state)
            net.uses_late = rank == 2 and round_ < 3
            optimizers.one_step(opt, net, rank, round_)
        ends.append(small_model.values(net))
    return ends


def refused(rank, what):
    """The error when a state of another job is loaded, and whether anything changed."""
    net = small_model.net()
    opt = made(net, "compskip", "sharded", "sgd")
    train(opt, net, rank, range(3))
    state = opt.state_dict()
    name, layout, settings = "compskip", "sharded", {}
    if what == "algorithm":
        name = "dropsign"
    elif what == "layout":
        layout = "rank0"
    elif what == "seed":
        settings = {"seed": 6}
    elif what == "parameters":
        net = torch.nn.Linear(6, 3)
    elif what == "names":
        settings = {"model": None}
    elif what == "plain":
        state = torch.optim.SGD(net.parameters(), lr=0.1).state_dict()
    elif what == "rank":
        gathered = [None] * N
        dist.all_gather_object(gathered, state)
        state = gathered[(rank + 1) % N]
    opt = made(net, name, layout, "sgd", **settings)
    if what not in ("parameters", "names"):
        train(opt, net, rank, range(2))
    before = small_model.values(net), optimizers.state_of(opt), counted(opt), opt.param_groups[0]["lr"]
    try:
        opt.load_state_dict(state)
        reported = "nothing"
    except Exception as error:
        reported = f"{type(error).__name__}: {error}"
    after = small_model.values(net), optimizers.state_of(opt), counted(opt), opt.param_groups[0]["lr"]
    return reported, same(before, after)


def counted(opt):
    """The traffic without what ranks send to agree, which they also do to refuse."""
    return replace(opt.traffic, control_bytes=0)


def same(before, after):
    try:
        torch.testing.assert_close(before[:2], after[:2], rtol=0, atol=0)
    except AssertionError:
        return False
    return before[2:] == after[2:]


def act(rank, cases):
    return {
        "interrupted": {case: interrupted(rank, case) for case in cases},
        "refused": {what: refused(rank, what) for what in (*REFUSED, *TAKEN)},
        "used only before": used_only_before(rank),
    }


@pytest.fixture(scope="module")
def by_rank(request):
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    wanted = [item.callspec.params.get("case") for item in here]
    cases = [case for case in CASES if case in wanted]
    return run_ranks(act, N, cases)


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY_CASE, ids="-".join)
def test_an_interrupted_run_ends_with_the_bits_of_a_straight_one(case, by_rank):
    for rank, results in enumerate(by_rank):
        if (case[1], rank) == ("dedicated", N - 1):
            continue  # it trains no model
        (straight, _), (resumed, _) = results["interrupted"][case]
        assert torch.equal(resumed, straight), f"rank {rank}"
        assert not torch.equal(straight, small_model.values(small_model.net()))


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY_CASE, ids="-".join)
def test_traffic_continues_counting_after_an_interruption(case, by_rank):
    for results in by_rank:
        (_, straight), (_, resumed) = results["interrupted"][case]
        assert resumed["control_bytes"] > straight["control_bytes"], "a restart sends control bytes of its own"
        apart = {"seconds": None, "control_bytes": None}
        assert resumed | apart == straight | apart
        assert straight["rounds"] == 2 * half_of(case) // (3 if case[2] == "local steps" else 1)


@pytest.mark.slow
def test_a_save_in_the_middle_of_local_steps_holds_each_ranks_own_parameters(by_rank):
    """10 steps are three averages and one step more: the case only tests what it says if replicas differ there."""
    case = next(case for case in CASES if case[2] == "local steps")
    ends = [results["interrupted"][case][0][0] for results in by_rank]
    assert not torch.equal(ends[0], ends[1])  # 20 steps end between two averages as well


@pytest.mark.slow
def test_the_set_of_layers_in_use_is_restored(by_rank):
    for straight, resumed in (results["used only before"] for results in by_rank):
        assert torch.equal(resumed, straight)


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSED)
def test_a_state_of_another_job_is_refused_and_changes_nothing(what, by_rank):
    message = {"names": "parameters", "plain": "no 'laconic' part"}.get(what, what)
    for results in by_rank:
        reported, unchanged = results["refused"][what]
        assert reported.startswith("ValueError")
        assert message in reported
        assert unchanged


@pytest.mark.slow
@pytest.mark.parametrize("what", TAKEN)
def test_the_state_of_another_rank_or_layout_is_taken_by_the_ranks_together(what, by_rank):
    for results in by_rank:
        assert results["refused"][what] == ("nothing", False)
