"""What a worker remembers: zero at first, staged within a step, kept or dropped at its end."""

import weakref

import pytest
import torch

from laconic.buffer_pool import Pool
from laconic.contract import Memory


def memory(count: int = 3, dtype: torch.dtype = torch.float64) -> Memory:
    return Memory(count, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_was_never_written_is_a_zero_vector(dtype):
    mine = memory(4, dtype)
    assert torch.equal(mine["debt"], torch.zeros(4, dtype=dtype))
    assert mine["debt"].dtype == dtype
    assert "debt" not in mine
    assert list(mine) == []


def test_the_zero_vector_cannot_be_changed_in_place():
    mine = memory()
    with pytest.raises(RuntimeError, match="single memory location"):
        mine["debt"].add_(1)
    assert not mine["debt"].any()


def test_a_step_reads_what_it_has_written_and_keeps_it_on_commit():
    mine = memory()
    mine["debt"] = torch.ones(3)
    assert "debt" in mine
    assert list(mine) == []  # staged, not kept
    assert torch.equal(mine["debt"], torch.ones(3))
    mine.commit()
    assert list(mine) == ["debt"]
    mine["debt"] = mine["debt"] + 1
    assert mine["debt"].tolist() == [2.0] * 3
    mine.commit()
    assert mine["debt"].tolist() == [2.0] * 3


def test_a_dropped_step_leaves_no_trace():
    mine = memory()
    mine["debt"] = torch.ones(3)
    mine.set_number("lr", 0.5)
    mine.commit()
    mine["debt"] = torch.full((3,), 9.0)
    mine["momentum"] = torch.full((3,), 9.0)
    mine.set_number("lr", 0.25)
    mine.drop()
    assert mine["debt"].tolist() == [1.0] * 3
    assert mine["momentum"].tolist() == [0.0] * 3
    assert mine.number("lr", 1.0) == 0.5
    assert set(mine) == {"debt", "lr"}
    mine.commit()
    assert mine["debt"].tolist() == [1.0] * 3


def test_values_are_kept_as_they_are():
    mine = memory()
    value = torch.ones(3)
    mine["debt"] = value
    mine.commit()
    assert mine["debt"] is value


def places(vectors: list[torch.Tensor]) -> set[int]:
    return {vector.data_ptr() for vector in vectors}


def test_what_is_replaced_is_used_again_and_what_is_kept_is_not():
    mine = memory()
    seen = set()
    for value in range(6):
        spare = mine.spare()
        if value:
            assert spare.data_ptr() != mine["debt"].data_ptr()
            assert mine["debt"].tolist() == [value - 1.0] * 3
        mine["debt"] = spare.fill_(value)
        seen.add(spare.data_ptr())
        mine.commit()
    assert len(seen) == 2


def test_a_kept_slice_keeps_its_whole_vector_out():
    mine = memory()
    whole = mine.spare().fill_(7)
    mine["part"] = whole[1:]
    mine.commit()
    assert mine.spare().data_ptr() != whole.data_ptr()
    mine["part"] = torch.zeros(2)
    mine.commit()
    again = [mine.spare(), mine.spare()]
    assert whole.data_ptr() in places(again)
    assert all(vector.numel() == 3 for vector in again)


def test_a_stranger_that_was_kept_is_never_lent():
    mine = memory()
    stranger = torch.ones(3, dtype=torch.float64)
    mine["debt"] = stranger
    mine.commit()
    mine["debt"] = mine.spare().zero_()
    mine.commit()
    assert stranger.data_ptr() not in places([mine.spare() for _ in range(4)])


def test_a_dropped_step_gives_its_vectors_back_and_keeps_the_old_value():
    mine = memory()
    mine["debt"] = mine.spare().fill_(1)
    mine.commit()
    taken = mine.spare().fill_(9)
    mine["debt"] = taken
    mine.drop()
    assert mine["debt"].tolist() == [1.0] * 3
    assert mine.spare().data_ptr() == taken.data_ptr()


def test_a_result_stays_out_until_nobody_uses_it():
    mine = memory()
    result = mine.spare()
    mine.commit(result)
    used = True
    mine.take_back(lambda vector: used)
    assert mine.spare().data_ptr() != result.data_ptr()
    mine.commit()
    used = False
    mine.take_back(lambda vector: used)
    assert result.data_ptr() in places([mine.spare(), mine.spare()])


def test_a_result_that_a_name_holds_too_stays_with_the_name():
    mine = memory()
    mine["average"] = result = mine.spare().fill_(2)
    mine.commit(result.view(3))
    mine.take_back()
    assert mine.spare().data_ptr() != result.data_ptr()
    assert mine["average"].tolist() == [2.0] * 3


def test_results_that_are_never_taken_back_do_not_pile_up():
    mine = memory()
    results = []
    for _ in range(5):
        result = mine.spare()
        results.append(weakref.ref(result))
        mine.commit(result)
    del result
    assert sum(vector() is not None for vector in results) <= 2


def test_vectors_of_another_type_are_lent_too():
    mine = memory()
    votes = mine.spare(torch.int8)
    assert votes.dtype == torch.int8
    mine.commit()
    assert mine.spare().dtype == torch.float64
    assert mine.spare(torch.int8).data_ptr() == votes.data_ptr()


def test_workers_of_one_process_share_a_pool():
    pool = Pool(3, torch.float64)
    one, other = (Memory(3, torch.float64, pool=pool) for _ in range(2))
    vector = one.spare()
    assert other.spare().data_ptr() != vector.data_ptr()
    one.commit()
    assert other.spare().data_ptr() == vector.data_ptr()


def test_numbers_are_kept_in_float64_and_have_a_default():
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
    mine["debt"] = torch.ones(3)
    mine.commit()
    saved = mine.saved()
    saved["debt"].fill_(5)
    saved["new"] = torch.zeros(3)
    assert mine["debt"].tolist() == [1.0] * 3
    assert "new" not in mine


def test_nothing_is_saved_in_the_middle_of_a_step():
    mine = memory()
    mine["debt"] = torch.ones(3)
    with pytest.raises(AssertionError, match=r"in the middle of a step: \['debt'\]"):
        mine.saved()
    mine.drop()
    assert mine.saved() == {}


def test_what_is_restored_is_a_copy_and_replaces_everything():
    mine, other = memory(), memory()
    mine["debt"] = torch.ones(3)
    mine.set_number("lr", 0.5)
    mine.commit()
    saved = mine.saved()
    other["old"] = torch.ones(3)
    other.commit()
    other["staged"] = torch.ones(3)
    other.restore(saved)
    assert set(other) == {"debt", "lr"}
    assert "old" not in other
    assert "staged" not in other
    assert other["debt"].dtype == saved["debt"].dtype
    saved["debt"].fill_(5)
    assert other["debt"].tolist() == [1.0] * 3
    assert other.number("lr", 9.0) == 0.5
    other["debt"] = torch.zeros(3)
    other.commit()
    assert mine["debt"].tolist() == [1.0] * 3
