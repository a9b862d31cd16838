"""Asynchronous workers that have taken all their steps end their processes; the server and the others go on."""

import os
import sys
import time
from pathlib import Path

import pytest
import torch

import laconic
from support import small_model
from support.deadlines import DEADLINE_S, DEATH_TIMEOUT_S
from support.ranks import ends_of_ranks

pytestmark = pytest.mark.xdist_group(__name__)  # one process makes what these tests share

N = 4
STEPS = {0: 2, 1: 4, 2: 6, 3: 8}  # by rank; the last one serves
SETTINGS = {"no bound": {}, "bound 1": {"max_staleness": 1}}


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_for_the_end_of(rank: int, folder: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    file = folder / f"pid {rank}"
    while not (file.exists() and file.read_text() and has_ended(int(file.read_text()))):
        assert time.monotonic() < deadline, f"rank {rank} has not ended"
        time.sleep(0.01)


def take_steps_and_end(rank: int, folder: Path, settings) -> None:
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.05)
    opt = laconic.DistributedOptimizer(inner, laconic.ASGD(**settings), timeout_s=DEATH_TIMEOUT_S)
    (folder / f"pid {rank}").write_text(str(os.getpid()))
    for round_ in range(STEPS[rank]):
        if rank in (1, 2) and round_ == 3:
            wait_for_the_end_of(rank - 1, folder)

        def closure(round_=round_):
            opt.zero_grad()
            loss = small_model.loss(net, rank, round_)
            loss.backward()
            return loss

        opt.step(None if opt.serves_only else closure)
    if opt.serves_only:
        (folder / "served").write_text(f"{opt.driver.rounds} {sum(opt.traffic.staleness.values())}")
    sys.exit(0)  # a normal end, without the barrier of the other tests


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_workers_that_have_taken_all_their_steps_may_end_and_the_server_ends_with_the_last(name, tmp_path):
    ends = ends_of_ranks(take_steps_and_end, N, tmp_path, SETTINGS[name])
    assert [end.error for end in ends] == [""] * N, ends
    assert (tmp_path / "served").read_text() == f"{STEPS[3]} {sum(STEPS[rank] for rank in range(N - 1))}"
