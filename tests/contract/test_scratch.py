"""The vectors that a step borrows: used again after the round, but never while a memory or a receiver uses them."""

import weakref

import torch

from laconic.buffer_pool import VectorPool
from laconic.contract import Rule, Scratch, Slot
from support.memories import ANY, memory_of


class Borrower:
    """A memory and a scratch, as a session has them."""

    def __init__(self, pool: VectorPool | None = None) -> None:
        self.memory = memory_of(table=ANY | {"part": Slot(rule=Rule.SAME, may_be_shorter=True)})
        self.scratch = Scratch(pool or VectorPool(3, torch.float64))

    def commit(self, *results: torch.Tensor) -> None:
        self.memory.commit()
        self.scratch.end_round(self.memory.committed.values(), results)

    def drop(self) -> None:
        self.memory.drop()
        self.scratch.end_round(self.memory.committed.values())


def indices(vectors: list[torch.Tensor]) -> set[int]:
    return {vector.data_ptr() for vector in vectors}


def test_what_is_replaced_is_used_again_and_what_is_committed_is_not():
    mine = Borrower()
    seen = set()
    for value in range(6):
        scratch = mine.scratch()
        if value:
            assert scratch.data_ptr() != mine.memory["residual"].data_ptr()
            assert mine.memory["residual"].tolist() == [value - 1.0] * 3
        mine.memory["residual"] = scratch.fill_(value)
        seen.add(scratch.data_ptr())
        mine.commit()
    assert len(seen) == 2


def test_a_committed_slice_keeps_its_full_vector_in_use():
    mine = Borrower()
    full = mine.scratch().fill_(7)
    mine.memory["part"] = full[1:]
    mine.commit()
    assert mine.scratch().data_ptr() != full.data_ptr()
    mine.memory["part"] = torch.zeros(2, dtype=torch.float64)
    mine.commit()
    again = [mine.scratch(), mine.scratch()]
    assert full.data_ptr() in indices(again)
    assert all(vector.numel() == 3 for vector in again)


def test_a_committed_vector_that_is_not_of_the_pool_is_never_borrowed():
    mine = Borrower()
    stranger = torch.ones(3, dtype=torch.float64)
    mine.memory["residual"] = stranger
    mine.commit()
    mine.memory["residual"] = mine.scratch().zero_()
    mine.commit()
    assert stranger.data_ptr() not in indices([mine.scratch() for _ in range(4)])


def test_a_dropped_step_returns_its_vectors_and_keeps_the_old_value():
    mine = Borrower()
    mine.memory["residual"] = mine.scratch().fill_(1)
    mine.commit()
    taken = mine.scratch().fill_(9)
    mine.memory["residual"] = taken
    mine.drop()
    assert mine.memory["residual"].tolist() == [1.0] * 3
    assert mine.scratch().data_ptr() == taken.data_ptr()


def test_a_result_is_not_reclaimed_while_it_is_used():
    mine = Borrower()
    result = mine.scratch()
    mine.commit(result)
    mine.scratch.reclaim([result])
    assert mine.scratch().data_ptr() != result.data_ptr()
    mine.commit()
    mine.scratch.reclaim()
    assert result.data_ptr() in indices([mine.scratch(), mine.scratch()])


def test_a_result_that_a_name_holds_too_stays_with_the_name():
    mine = Borrower()
    mine.memory["average"] = result = mine.scratch().fill_(2)
    mine.commit(result.view(3))
    mine.scratch.reclaim()
    assert mine.scratch().data_ptr() != result.data_ptr()
    assert mine.memory["average"].tolist() == [2.0] * 3


def test_results_that_are_never_reclaimed_do_not_pile_up():
    mine = Borrower()
    results = []
    for _ in range(5):
        result = mine.scratch()
        results.append(weakref.ref(result))
        mine.commit(result)
    del result
    assert sum(vector() is not None for vector in results) <= 2


def test_vectors_of_another_type_are_borrowed_too():
    mine = Borrower()
    votes = mine.scratch(torch.int8)
    assert votes.dtype == torch.int8
    mine.commit()
    assert mine.scratch().dtype == torch.float64
    assert mine.scratch(torch.int8).data_ptr() == votes.data_ptr()


def test_workers_of_one_process_share_a_pool():
    pool = VectorPool(3, torch.float64)
    one, other = (Borrower(pool) for _ in range(2))
    vector = one.scratch()
    assert other.scratch().data_ptr() != vector.data_ptr()
    one.commit()
    assert other.scratch().data_ptr() == vector.data_ptr()


def test_a_vector_that_another_memory_holds_is_reclaimed_once_that_replaces_it():
    scratch, memories = Scratch(VectorPool(3, torch.float64)), [memory_of() for _ in range(2)]
    shared = scratch().fill_(4)
    memories[1]["stored"] = shared
    memories[1].commit()
    scratch.end_round(value for memory in memories for value in memory.committed.values())
    assert scratch().data_ptr() != shared.data_ptr()
    memories[1]["stored"] = torch.zeros(3, dtype=torch.float64)
    memories[1].commit()
    scratch.end_round(value for memory in memories for value in memory.committed.values())
    assert shared.data_ptr() in indices([scratch(), scratch()])


def test_all_results_of_a_round_stay_until_they_are_reclaimed():
    mine = Borrower()
    results = [mine.scratch(), mine.scratch()]
    mine.commit(*results)
    assert not indices(results) & indices([mine.scratch(), mine.scratch()])
    mine.scratch.reclaim(results[:1])
    assert mine.scratch().data_ptr() == results[1].data_ptr()
