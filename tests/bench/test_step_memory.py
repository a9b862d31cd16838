"""The step bench measures methods one after the other in lasting processes: each begins without what the last had."""

import gc

import torch

from laconic.bench.step_rank import BenchRank
from laconic.buffer_pool import BUFFER_POOL
from support.ranks import run_ranks

D = 300_000
METHODS = ["signsgd-mv", "lasg"]  # a closure holds the second one's contender, which holds the closure


def long_tensors() -> int:
    return sum(isinstance(each, torch.Tensor) and each.numel() >= D for each in gc.get_objects())


def left_by_a_row(rank: int) -> list[tuple[int, int]]:
    """By method, how many long vectors are there more than before its row, and buffers that nobody uses."""
    ranked, left = BenchRank(), []
    ranked.set_up(D)
    gc.collect()
    gc.disable()  # else it may collect by chance
    for name in METHODS:
        before = long_tensors()
        ranked.add(name, floor="floor")
        ranked.warm_up([name, "floor"])
        assert long_tensors() > before
        ranked.remove(name, "floor")
        left.append((long_tensors() - before, len(BUFFER_POOL._free)))
    gc.enable()
    return left


def test_a_method_that_was_measured_leaves_no_vector_and_no_buffer_to_the_row_after_it():
    assert run_ranks(left_by_a_row, 2) == [[(0, 0)] * len(METHODS)] * 2
