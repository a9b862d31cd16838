"""`opt.join()`: ranks with unequally many mini-batches, against `DistributedDataParallel.join`."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import laconic
from support import methods, optimizers, small_model
from support.ranks import run_ranks

pytestmark = [pytest.mark.xdist_group(__name__)]

N = 3
BATCHES = {0: 5, 1: 0, 2: 3}  # by rank, in an epoch
REFUSING = ("signsgd-mv", "ssgd-mv", "ssgd-mv-ad", "ssgd-mv-rs", "lasg", "sasg")
ADMITTING = [case for case in methods.in_step_with_layouts(N) if case[0] not in REFUSING]
JOINED = [case for case in ADMITTING if case[0] == "sgd" or case == [c for c in ADMITTING if c[0] == case[0]][-1]]


def against_ddp(rank: int, by_initial: bool) -> tuple[Tensor, Tensor]:
    """The parameters after two epochs with our join and with DDP's. Layers are used by all ranks in each step."""
    ended = []
    for ours in (True, False):
        net = small_model.net().double()
        inner = torch.optim.SGD(net.parameters(), lr=0.1)
        wrapped = net if ours else nn.parallel.DistributedDataParallel(net)
        opt = laconic.DistributedOptimizer(inner, laconic.SGD(), model=net, check_every=1) if ours else inner
        for epoch in range(2):
            context = opt if ours else wrapped
            with context.join(divide_by_initial_world_size=by_initial):
                for step in range(BATCHES[rank] + 1):
                    opt.zero_grad()
                    small_model.loss(wrapped, rank, 10 * epoch + step).backward()
                    opt.step()
        ended.append(small_model.values(net))
    return ended[0], ended[1]


@pytest.mark.slow
@pytest.mark.parametrize("by_initial", [True, False])
def test_sgd_ends_where_distributed_data_parallel_ends_in_its_own_join(by_initial):
    for ours, ddps in run_ranks(against_ddp, N, by_initial):
        assert torch.allclose(ours, ddps, rtol=1e-12, atol=0)


def join_in_all(rank: int, cases: list[tuple[str, str]]) -> list[tuple[Tensor, int, float]]:
    """By method and layout, the parameters, rounds and lr after two unequal epochs; one rank has no data."""
    ended = []
    for name, layout in cases:
        net = small_model.net()
        opt = optimizers.wrapped(net, name, layout, check_every=1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=0.9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a rank without data calls its scheduler before its optimizer
            for epoch in range(2):
                with opt.join():
                    for step in range(9 if opt.serves_only else BATCHES[rank]):
                        optimizers.one_step(opt, net, rank, 10 * epoch + step)
                        scheduler.step()
        ended.append((small_model.values(net), opt.traffic.rounds, opt.param_groups[0]["lr"]))
    return ended


@pytest.mark.nightly
def test_a_rank_without_data_shadows_the_others_in_each_method_and_layout():
    by_rank = run_ranks(join_in_all, N, JOINED)
    for place, (name, layout) in enumerate(JOINED):
        workers = range(N - (layout == "dedicated"))
        values, rounds, lr = by_rank[0][place]
        assert not torch.equal(values, small_model.values(small_model.net())), (name, layout)
        for rank in workers:
            other, n, its_lr = by_rank[rank][place]
            assert (n, its_lr) == (rounds, lr), (name, layout, rank)
            if laconic.ALGORITHMS[name].replicas_equal:
                assert torch.equal(other, values), (name, layout, rank)


def terminate_early(rank: int) -> str:
    net = small_model.net()
    opt = optimizers.wrapped(net, "sgd", "allreduce")
    try:
        with opt.join(throw_on_early_termination=True):
            for step in range(2 + rank):
                optimizers.one_step(opt, net, rank, step)
    except RuntimeError as error:
        return str(error)
    return "nothing"


@pytest.mark.slow
def test_all_ranks_raise_when_one_runs_out_of_data_if_they_are_asked_to():
    for messages in run_ranks(terminate_early, 2):
        assert messages.startswith("join: 1 of 2 workers have run out of data"), messages


REFUSED = {"signsgd-mv": "vote", "ssgd-mv": "vote", "lasg": "two points", "sasg": "two points", "csgd": "vote"}


@pytest.mark.parametrize("name", REFUSED)
def test_methods_in_which_a_rank_without_data_would_have_a_say_refuse_to_join(name, group_of_one):
    net = small_model.net()
    algorithm = laconic.ALGORITHMS[name](**({"compressor": laconic.Sign()} if name == "csgd" else {}))
    opt = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), algorithm, model=net)
    with pytest.raises(ValueError, match=f"join: {name} admits no rank without data: .*{REFUSED[name]}"):
        opt.join()


def test_changes_of_local_steps_cannot_be_divided_by_those_that_are_left(group_of_one):
    net = small_model.net()
    opt = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.DiLoCo(), local_steps=2)
    with pytest.raises(ValueError, match="divide_by_initial_world_size=False does not go with diloco"):
        opt.join(divide_by_initial_world_size=False)


def test_a_join_that_is_not_enabled_changes_nothing_and_two_do_not_nest(group_of_one):
    net = small_model.net()
    opt = laconic.DistributedOptimizer(torch.optim.SGD(net.parameters(), lr=0.1), laconic.SGD(), model=net)
    twin = copy.deepcopy(net)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1)
    with opt.join(enable=False):
        optimizers.one_step(opt, net, 0, 0)
    small_model.loss(twin, 0, 0).backward()
    plain.step()
    assert torch.equal(small_model.values(net), small_model.values(twin))
    with opt.join(), pytest.raises(RuntimeError, match="in a join context already"), opt.join():
        pass
