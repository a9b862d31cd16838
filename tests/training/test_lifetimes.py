"""Optimizers end without a trace: no process group, thread or descriptor stays, by `close`, or by their last user."""

import gc
import os
import time

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import laconic
import laconic.ddp
from laconic import torch_compat
from support import optimizers, small_model
from support.deadlines import HANG_TIMEOUT_S
from support.ranks import run_ranks

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(__name__)]


def held() -> tuple[int, int, int]:
    """Threads, descriptors and process groups of this process."""
    groups = len(dist.distributed_c10d._world.pg_map)
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), groups


def is_more(late: tuple[int, int, int], early: tuple[int, int, int]) -> bool:
    return any(one > other for one, other in zip(late, early, strict=True))


def held_after(early: tuple[int, int, int]) -> tuple[int, int, int]:
    """What is held, once no more than before is: the system still lists a thread for a moment after its end."""
    until = time.monotonic() + HANG_TIMEOUT_S
    while is_more(now := held(), early) and time.monotonic() < until:
        os.sched_yield()
    return now


def make_many(rank: int, group_ranks: list[int], many: int) -> list[tuple[int, int, int]]:
    """What this process holds after eight optimizers of several methods and after many, half of them closed."""
    group = None if len(group_ranks) == dist.get_world_size() else dist.new_group(group_ranks)
    if rank not in group_ranks:
        return [held(), held()]
    seen = []
    gc.collect()
    gc.disable()  # the last user's end is enough
    for number in range(many):
        net = small_model.net()
        name, layout = (("sgd", "auto"), ("ec-sgd", "rank0"), ("sgd-server", "rank0"), ("dsgd", "peers"))[number % 4]
        opt = optimizers.wrapped(net, name, layout, group=group)
        if number < 8:
            optimizers.one_step(opt, net, rank, number)
        if number % 2:
            opt.close()
        del opt, net
        if number == 7:
            seen.append(held())
    seen.append(held_after(seen[0]))
    gc.enable()
    return seen


@pytest.mark.parametrize(("n", "group_ranks", "many"), [(1, [0], 200), (2, [0, 1], 40), (3, [1, 2], 16)])
def test_of_many_optimizers_in_one_process_nothing_remains(n, group_ranks, many):
    for early, late in run_ranks(make_many, n, group_ranks, many):
        assert not is_more(late, early), (early, late)


def fail_and_try_again(rank: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """What is held before and after optimizers that could not be made, since the ranks' settings differ."""
    before = held()
    for _ in range(3):
        net = small_model.net()
        try:
            optimizers.wrapped(net, "sgd", "rank0", seed=rank)
        except laconic.SetupError:
            pass
        else:
            raise AssertionError("different seeds were not refused")
    return before, held_after(before)


def test_of_an_optimizer_that_could_not_be_made_nothing_remains():
    for before, after in run_ranks(fail_and_try_again, 2):
        assert not is_more(after, before), (before, after)


def test_the_inner_optimizer_outlives_the_outer_one(group_of_one):
    net = small_model.net()
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        opt = laconic.DistributedOptimizer(inner, laconic.SGD())
        del opt
        inner.load_state_dict(inner.state_dict())  # the hook of an optimizer that is gone does nothing
    assert not dist.distributed_c10d._world.pg_map.keys() - {dist.group.WORLD}


@pytest.mark.parametrize("with_optimizer", [False, True])
def test_of_a_handle_that_nobody_holds_no_hook_of_all_optimizers_remains(with_optimizer, group_of_one):
    net = DistributedDataParallel(small_model.net())
    inner = torch.optim.SGD(net.parameters(), lr=0.1)
    handle = laconic.ddp.attach(net, laconic.ECSGD(), **({"optimizer": inner} if with_optimizer else {}))
    other = torch.optim.SGD(small_model.net().parameters(), lr=0.1)
    assert torch_compat.has_step_hooks(other)
    del handle, net, inner
    gc.collect()
    assert not torch_compat.has_step_hooks(other)
