"""Optimizers that are closed, or whose last user is gone, while other ranks go on: these learn it at once."""

import pytest

import laconic
from laconic.errors import ClosedError
from support import optimizers, small_model
from support.ranks import announce, run_ranks, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]

CASES = [  # method, layout, whether rank 1 closes its optimizer or drops it
    ("sgd", "allreduce", True), ("sgd", "rank0", False), ("compskip", "sharded", True), ("dsgd", "peers", False),
]  # fmt: skip


def end_unequally(rank: int) -> list[str]:
    """What each rank is told when rank 1 ends after two steps, and the others go on."""
    messages = []
    for name, layout, closes in CASES:
        net = small_model.net()
        opt = optimizers.wrapped(net, name, layout)
        for round_ in range(2):
            optimizers.one_step(opt, net, rank, round_)
        if rank == 1:
            if closes:
                opt.close()
            del opt
            announce(name + layout)
            continue
        wait_for(name + layout)
        with pytest.raises(laconic.PeerLostError) as caught:
            optimizers.one_step(opt, net, rank, 2)
        assert opt.state_dict()["laconic"], "nothing that was staged is in the way"
        messages.append(str(caught.value))
    return messages


def test_every_rank_learns_that_another_ones_optimizer_is_gone_and_can_save_its_state():
    by_rank = run_ranks(end_unequally, 3)
    for rank in (0, 2):
        for case, message in zip(CASES, by_rank[rank], strict=True):
            assert "rank 1 has ended after 2 steps" in message, (case, message)
            assert f"rank {rank}, this one, is in step 3" in message, (case, message)


def close_and_go_on(rank: int) -> list[str]:
    """What a closed optimizer still does, and what it refuses; another one takes its place."""
    net = small_model.net()
    with optimizers.wrapped(net, "ec-sgd", "rank0") as opt:
        optimizers.one_step(opt, net, rank, 0)
    opt.close()  # again
    assert opt.traffic.rounds == 1
    assert opt.state_dict()["laconic"]
    refused = []
    for task in (lambda: optimizers.one_step(opt, net, rank, 1), opt.total_traffic):
        with pytest.raises((ClosedError, RuntimeError)) as caught:
            task()
        refused.append(str(caught.value))
    again = optimizers.wrapped(net, "ec-sgd", "rank0")
    optimizers.one_step(again, net, rank, 1)
    assert again.total_traffic().rounds == 1
    return refused


def test_a_closed_optimizer_refuses_to_step_and_still_shows_its_state_and_traffic():
    for refused in run_ranks(close_and_go_on, 2):
        assert all("this DistributedOptimizer is closed" in text for text in refused)
