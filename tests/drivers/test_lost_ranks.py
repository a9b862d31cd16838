"""Ranks that die, hang, never start or have other settings: the others must report it, and name them.

Launches that mostly wait do so at the same time. In one of them each death leaves one rank fewer, and the others
continue with the next case.
"""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import laconic
from support import small_model
from support.deadlines import DEATH_TIMEOUT_S, HANG_TIMEOUT_S, PATIENCE_S
from support.ranks import Launch, announce, wait_for

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 7
DEATHS = {  # case: layout, ranks that are left, the rank that dies
    "a rank dies where every rank serves": ("sharded", range(7), 6),
    "a rank dies in an all-reduce": ("allreduce", range(6), 5),
    "the dedicated server dies": ("dedicated", range(5), 4),
    "a worker of rank 0 dies": ("rank0", range(4), 3),
    "rank 0 dies, which serves": ("rank0", range(3), 0),
}
HANGS = {"a worker of rank 0 hangs": ("rank0", 2), "a rank hangs in an all-reduce": ("allreduce", 1)}
ODD_RANK = 3
DIFFERENCES = {  # what rank 0 and the odd rank have
    "algorithm": ("algorithm=compskip", "algorithm=dropsign"), "compskip.keep": ("keep=0.3", "keep=0.4 (compskip)"),
    "seed": ("seed=5", "seed=6"), "shapes": ("parameter 0='group0.0' (11, 6) torch.float32, group 0",
    "parameter 0='group0.0' (1, 112) torch.float32, group 0"), "dtype": ("dtype=torch.float32", "dtype=torch.float64"),
    "layout": ("layout=rank0", "layout=sharded"), "check_every": ("check_every=100", "check_every=7"),
}  # fmt: skip


def differ(rank: int, folder: Path) -> None:
    """This rank's errors are written to files, here and below, since it may die before it can return them."""
    for what in DIFFERENCES:
        note(folder, what, rank, lambda what=what: odd_optimizer(rank, what))
    die_in_turn(rank, folder, [story for story, (_, ranks, _) in DEATHS.items() if len(ranks) > 4])


def die_in_turn(rank: int, folder: Path, stories: list[str]) -> None:
    begin(rank, {DEATHS[story][0] for story in stories})
    for story in stories:
        note(folder, story, rank, lambda story=story: die(rank, *DEATHS[story]))
    os._exit(0)  # some of the ranks are gone, so nothing can be taken down in order


def hang(rank: int, folder: Path, story: str) -> None:
    begin(rank, {HANGS[story][0]})
    note(folder, story, rank, lambda: hang_in_training(rank, story))
    announce(f"{story}: {rank} gave up")
    wait_for(*(f"{story}: {other} gave up" for other in range(3)))
    os._exit(0)


def never_come(rank: int, folder: Path) -> None:
    group = dist.new_group([1, 2], use_local_synchronization=True)
    if rank == 1:
        note(folder, "a rank never comes", rank, lambda: optimizer(small_model.net(), "rank0", group, HANG_TIMEOUT_S))
    os._exit(0)


def begin(rank: int, layouts: set[str]) -> None:
    """Train a little, so that no module is imported while others wait."""
    for layout in sorted(layouts):
        train(rank, layout, range(dist.get_world_size()), 2, lambda: None, PATIENCE_S)


def note(folder: Path, story: str, rank: int, task) -> None:
    """Write the error that the task raises to a file."""
    try:
        task()
        reported = "nothing"
    except Exception as error:
        reported = f"{type(error).__name__}: {error}"
    (folder / f"{story} {rank}").write_text(reported)


def optimizer(net, layout, group=None, timeout_s=PATIENCE_S, **settings):
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    settings = {"algorithm": laconic.SGD(), "seed": 5, "timeout_s": timeout_s} | settings
    return laconic.DistributedOptimizer(inner, settings.pop("algorithm"), layout=layout, group=group, **settings)


def odd_optimizer(rank: int, what: str) -> None:
    """Make an optimizer that on ODD_RANK differs from the others' in one thing."""
    net, layout, settings = small_model.net(), "rank0", {"algorithm": laconic.CompSkip(keep=0.3)}
    if rank == ODD_RANK:
        if what == "shapes":
            net = torch.nn.Linear(112, 1)  # as many parameters, of other shapes
        elif what == "dtype":
            net = net.double()
        elif what == "layout":
            layout = "sharded"
        else:
            odd = {"algorithm": laconic.DropSign(), "seed": 6, "check_every": 7}
            settings |= {"algorithm": laconic.CompSkip(keep=0.4)} if what == "compskip.keep" else {what: odd[what]}
    optimizer(net, layout, **settings)


def train(rank: int, layout: str, ranks, rounds: int, before_the_last, timeout_s: float) -> None:
    """Train some rounds with `ranks`; `before_the_last()` is called before the last one."""
    group = None if len(ranks) == dist.get_world_size() else dist.new_group(list(ranks), use_local_synchronization=True)
    net = small_model.net()
    opt = optimizer(net, layout, group, timeout_s)
    for round_ in range(rounds):
        if not opt.serves_only:
            opt.zero_grad()
            small_model.loss(net, rank, round_).backward()
        if round_ == rounds - 1:
            before_the_last()
        opt.step()


def die(rank: int, layout: str, ranks, doomed: int) -> None:
    train(rank, layout, ranks, 4, lambda: os._exit(1) if rank == doomed else None, DEATH_TIMEOUT_S)


def hang_in_training(rank: int, story: str) -> None:
    """Of three ranks the idle rank begins its last round when the others have given up."""
    layout, idle = HANGS[story]
    others = [f"{story}: {other} gave up" for other in range(3) if other != idle]
    train(rank, layout, range(3), 4, lambda: wait_for(*others) if rank == idle else None, HANG_TIMEOUT_S)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The error that each rank got in each case."""
    folder = tmp_path_factory.mktemp("reported")
    launches = [Launch(hang, 3, folder, story) for story in HANGS]
    launches.append(Launch(never_come, 3, folder))
    launches.append(
        Launch(die_in_turn, 4, folder, [story for story, (_, ranks, _) in DEATHS.items() if len(ranks) <= 4])
    )
    launches.append(Launch(differ, N, folder))
    errors = [end.error for launch in launches for end in launch.ends() if end.error]
    assert not errors, "\n".join(errors)
    return lambda story, rank: (folder / f"{story} {rank}").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("story", DEATHS)
def test_all_survivors_name_the_rank_that_died(story, reported):
    _, ranks, doomed = DEATHS[story]
    for rank in set(ranks) - {doomed}:
        message = reported(story, rank)
        assert message.startswith(f"PeerLostError: rank {doomed} was waited for"), f"rank {rank}: {message}"
        assert "its connection closed" in message


@pytest.mark.slow
@pytest.mark.parametrize("story", HANGS)
def test_a_rank_that_hangs_is_named_by_all_others(story, reported):
    _, idle = HANGS[story]
    for rank in {0, 1, 2} - {idle}:
        message = reported(story, rank)
        assert message.startswith(f"PeerLostError: rank {idle} was waited for"), f"rank {rank}: {message}"
        assert f"nothing came within timeout_s={HANG_TIMEOUT_S:g}" in message


@pytest.mark.slow
@pytest.mark.parametrize("story", HANGS)
def test_a_rank_that_is_late_after_the_others_gave_up_learns_the_reason(story, reported):
    _, idle = HANGS[story]
    message = reported(story, idle)
    assert message.startswith(f"PeerLostError: rank {idle}, this one, came too late"), message


@pytest.mark.slow
def test_a_rank_that_never_makes_its_optimizer_is_named_with_its_number_in_the_world(reported):
    message = reported("a rank never comes", 1)
    assert message.startswith("PeerLostError: rank 1 of the group (global rank 2) was waited for"), message


@pytest.mark.slow
@pytest.mark.parametrize("what", DIFFERENCES)
def test_ranks_set_up_differently_all_learn_what_differs_and_where(what, reported):
    for rank in range(N):
        message = reported(what, rank)
        of_rank_0, of_odd_rank = DIFFERENCES[what]
        assert message == (
            f"SetupError: rank 0 and rank {ODD_RANK} were set up differently: rank 0 has {of_rank_0}, rank {ODD_RANK} "
            f"has {of_odd_rank}"
        )
