"""The memory of a worker: zero at first, staged within a step, committed or dropped at its end."""

import weakref

import pytest
import torch

from laconic.buffer_pool import VectorPool
from laconic.contract import Memory


def memory(count: int = 3, dtype: torch.dtype = torch.float64) -> Memory:
    return Memory(count, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_never_written_is_a_zero_vector(dtype):
    mine = memory(4, dtype)
    assert torch.equal(mine["residual"], torch.zeros(4, dtype=dtype))
    assert mine["residual"].dtype == dtype
    assert "residual" not in mine
    assert list(mine) == []


def test_the_zero_vector_cannot_be_changed_in_place():
    mine = memory()
    with pytest.raises(RuntimeError, match="single memory location"):
        mine["residual"].add_(1)
    assert not mine["residual"].any()


def test_a_step_reads_what_it_has_written_and_keeps_it_on_commit():
    mine = memory()
    mine["residual"] = torch.ones(3)
    assert "residual" in mine
    assert list(mine) == []  # staged, not committed
    assert torch.equal(mine["residual"], torch.ones(3))
    mine.commit()
    assert list(mine) == ["residual"]
    mine["residual"] = mine["residual"] + 1
    assert mine["residual"].tolist() == [2.0] * 3
    mine.commit()
    assert mine["residual"].tolist() == [2.0] * 3


def test_a_dropped_step_leaves_no_trace():
    mine = memory()
    mine["residual"] = torch.ones(3)
    mine.set_number("lr", 0.5)
    mine.commit()
    mine["residual"] = torch.full((3,), 9.0)
    mine["momentum"] = torch.full((3,), 9.0)
    mine.set_number("lr", 0.25)
    mine.drop()
    assert mine["residual"].tolist() == [1.0] * 3
    assert mine["momentum"].tolist() == [0.0] * 3
    assert mine.number("lr", 1.0) == 0.5
    assert set(mine) == {"residual", "lr"}
    mine.commit()
    assert mine["residual"].tolist() == [1.0] * 3


def test_values_are_stored_as_they_are():
    mine = memory()
    value = torch.ones(3)
    mine["residual"] = value
    mine.commit()
    assert mine["residual"] is value


def indices(vectors: list[torch.Tensor]) -> set[int]:
    return {vector.data_ptr() for vector in vectors}


def test_what_is_replaced_is_used_again_and_what_is_committed_is_not():
    mine = memory()
    seen = set()
    for value in range(6):
        scratch = mine.scratch()
        if value:
            assert scratch.data_ptr() != mine["residual"].data_ptr()
            assert mine["residual"].tolist() == [value - 1.0] * 3
        mine["residual"] = scratch.fill_(value)
        seen.add(scratch.data_ptr())
        mine.commit()
    assert len(seen) == 2


def test_a_committed_slice_keeps_its_full_vector_in_use():
    mine = memory()
    full = mine.scratch().fill_(7)
    mine["part"] = full[1:]
    mine.commit()
    assert mine.scratch().data_ptr() != full.data_ptr()
    mine["part"] = torch.zeros(2)
    mine.commit()
    again = [mine.scratch(), mine.scratch()]
    assert full.data_ptr() in indices(again)
    assert all(vector.numel() == 3 for vector in again)


def test_a_committed_vector_that_is_not_of_the_pool_is_never_borrowed():
    mine = memory()
    stranger = torch.ones(3, dtype=torch.float64)
    mine["residual"] = stranger
    mine.commit()
    mine["residual"] = mine.scratch().zero_()
    mine.commit()
    assert stranger.data_ptr() not in indices([mine.scratch() for _ in range(4)])


def test_a_dropped_step_returns_its_vectors_and_keeps_the_old_value():
    mine = memory()
    mine["residual"] = mine.scratch().fill_(1)
    mine.commit()
    taken = mine.scratch().fill_(9)
    mine["residual"] = taken
    mine.drop()
    assert mine["residual"].tolist() == [1.0] * 3
    assert mine.scratch().data_ptr() == taken.data_ptr()


def test_a_result_is_not_reclaimed_while_it_is_used():
    mine = memory()
    result = mine.scratch()
    mine.commit(result)
    used = True
    mine.reclaim(lambda vector: used)
    assert mine.scratch().data_ptr() != result.data_ptr()
    mine.commit()
    used = False
    mine.reclaim(lambda vector: used)
    assert result.data_ptr() in indices([mine.scratch(), mine.scratch()])


def test_a_result_that_a_name_holds_too_stays_with_the_name():
    mine = memory()
    mine["average"] = result = mine.scratch().fill_(2)
    mine.commit(result.view(3))
    mine.reclaim()
    assert mine.scratch().data_ptr() != result.data_ptr()
    assert mine["average"].tolist() == [2.0] * 3


def test_results_that_are_never_reclaimed_do_not_pile_up():
    mine = memory()
    results = []
    for _ in range(5):
        result = mine.scratch()
        results.append(weakref.ref(result))
        mine.commit(result)
    del result
    assert sum(vector() is not None for vector in results) <= 2


def test_vectors_of_another_type_are_borrowed_too():
    mine = memory()
    votes = mine.scratch(torch.int8)
    assert votes.dtype == torch.int8
    mine.commit()
    assert mine.scratch().dtype == torch.float64
    assert mine.scratch(torch.int8).data_ptr() == votes.data_ptr()


def test_workers_of_one_process_share_a_pool():
    pool = VectorPool(3, torch.float64)
    one, other = (Memory(3, torch.float64, pool=pool) for _ in range(2))
    vector = one.scratch()
    assert other.scratch().data_ptr() != vector.data_ptr()
    one.commit()
    assert other.scratch().data_ptr() == vector.data_ptr()


def test_numbers_are_stored_in_float64_and_have_a_default():
    mine = memory(dtype=torch.float32)
    assert mine.number("lr", 0.1) == 0.1
    mine.set_number("lr", 0.1)
    assert mine.number("lr", 7.0) == 0.1
    mine.commit()
    assert mine.number("lr", 7.0) == 0.1
    mine.set_number("lr", 0)
    assert mine.number("lr", 7.0) == 0.0


def test_what_is_saved_is_a_copy():
    mine = memory()
    mine["residual"] = torch.ones(3)
    mine.commit()
    saved = mine.saved()
    saved["residual"].fill_(5)
    saved["new"] = torch.zeros(3)
    assert mine["residual"].tolist() == [1.0] * 3
    assert "new" not in mine


def test_nothing_is_saved_in_the_middle_of_a_step():
    mine = memory()
    mine["residual"] = torch.ones(3)
    with pytest.raises(AssertionError, match=r"in the middle of a step: \['residual'\]"):
        mine.saved()
    mine.drop()
    assert mine.saved() == {}


def test_what_is_restored_is_a_copy_and_replaces_everything():
    mine, other = memory(), memory()
    mine["residual"] = torch.ones(3)
    mine.set_number("lr", 0.5)
    mine.commit()
    saved = mine.saved()
    other["old"] = torch.ones(3)
    other.commit()
    other["staged"] = torch.ones(3)
    other.restore(saved)
    assert set(other) == {"residual", "lr"}
    assert "old" not in other
    assert "staged" not in other
    assert other["residual"].dtype == saved["residual"].dtype
    saved["residual"].fill_(5)
    assert other["residual"].tolist() == [1.0] * 3
    assert other.number("lr", 9.0) == 0.5
    other["residual"] = torch.zeros(3)
    other.commit()
    assert mine["residual"].tolist() == [1.0] * 3
