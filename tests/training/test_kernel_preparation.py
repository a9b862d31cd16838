"""Kernels are compiled before the first round, once a machine, and for as long as that takes the other ranks wait."""

import subprocess
import sys
import threading
import time
from types import NoneType

import pytest
import torch.distributed as dist

from laconic.drivers.distributed.meeting import Meeting
from laconic.errors import PeerLostError
from laconic.kernels.cpu import cache
from support.deadlines import DEADLINE_S, PATIENCE_S


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    cache.kernel_folder.cache_clear()
    yield cache.kernel_folder()
    cache.kernel_folder.cache_clear()


def prepared_in_another_process(job):
    cache._prepared.discard(job)  # what this process knows by itself
    return cache.are_prepared(job)


def test_the_kernels_of_a_job_are_compiled_once_until_one_of_them_is_gone(own_folder):
    uses = []

    def use():
        uses.append(1)
        own_folder.write("one.kernel", b"code")

    for _ in range(2):
        cache.prepare("job", use)
        assert prepared_in_another_process("job")
    assert len(uses) == 1
    assert not cache.are_prepared("another job")
    (own_folder.path / "one.kernel").unlink()
    assert not prepared_in_another_process("job")
    cache.prepare("job", use)
    assert prepared_in_another_process("job")
    assert len(uses) == 2


def test_without_a_folder_a_process_compiles_its_kernels_for_itself(own_folder):
    own_folder.problem = "not safe"
    cache.prepare("job in memory", lambda: None)
    assert cache.are_prepared("job in memory")
    assert not prepared_in_another_process("job in memory")


def gather(meeting, timeout_s):
    return meeting.gather(None, "to compile its kernels", NoneType, 64, timeout_s)


@pytest.mark.slow
def test_a_rank_that_compiles_is_waited_for_beyond_the_deadline():
    store, timeout_s = dist.HashStore(), 1.2
    ranks = [Meeting(store, (0, 1), rank, "kernels") for rank in (0, 1)]
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(gather(ranks[0], timeout_s)))
    started = time.monotonic()
    waiting.start()
    with ranks[1].not_hurried():
        while time.monotonic() < started + 2 * timeout_s:
            time.sleep(0.05)
        assert waiting.is_alive()
        gather(ranks[1], PATIENCE_S)
    waiting.join(DEADLINE_S)
    assert answers == [[None, None]]


def test_a_rank_whose_process_has_ended_while_it_compiled_is_not_waited_for_forever():
    store = dist.HashStore()
    meeting = Meeting(store, (0, 1), 0, "kernels")
    store.add(meeting._pulse_key(1), 1)
    with pytest.raises(PeerLostError, match="rank 1 was waited for"):
        gather(meeting, 0.1)


IN_A_ROUND = """
import os, sys, torch, torch.distributed as dist, laconic
from laconic.kernels.cpu.cache import kernel_folder
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
density = 0.01 + 1e-9 * os.getpid()  # a number that no process had before, as is the size of the other net
for net, method in (
    (torch.nn.Linear(300, 300), laconic.ECSGD(compressor=laconic.compressors.TopK(density=density))),
    (torch.nn.Linear(300, 300 + os.getpid() % 1000), laconic.GlobalReplica()),
):
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    opt = laconic.DistributedOptimizer(inner, method, model=net, layout="rank0")
    before = set(kernel_folder().used)
    for _ in range(3):
        opt.zero_grad()
        net(torch.randn(4, 300)).square().mean().backward()
        opt.step()
    print(len(before) > 3, {name for name in kernel_folder().used - before})
"""


@pytest.mark.slow
def test_a_round_needs_no_kernel_that_was_not_there_before_it():
    ended = subprocess.run([sys.executable, "-c", IN_A_ROUND], capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.stdout == 2 * "True set()\n", ended.stderr
