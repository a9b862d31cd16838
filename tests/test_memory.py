"""What a worker remembers: zero at first, staged within a step, kept or dropped at its end."""

import pytest
import torch

from laconic.memory import Memory


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


def test_values_in_borrowed_storage_are_copied_and_others_are_not():
    mine = memory()
    gradient = torch.arange(6.0)
    own = torch.ones(3)
    mine["whole"] = gradient
    mine["slice"] = gradient[2:5]
    mine["view"] = gradient.view(2, 3)[1]
    mine["own"] = own
    mine.commit(borrowed=gradient)
    gradient.fill_(-1)
    assert mine["whole"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert mine["slice"].tolist() == [2.0, 3.0, 4.0]
    assert mine["view"].tolist() == [3.0, 4.0, 5.0]
    assert mine["own"] is own


def test_a_slice_of_what_is_borrowed_protects_its_whole_storage():
    mine = memory()
    storage = torch.arange(6.0)
    mine["debt"] = storage[:3]
    mine.commit(borrowed=storage[3:])
    storage.fill_(-1)
    assert mine["debt"].tolist() == [0.0, 1.0, 2.0]


def test_without_a_lender_values_are_kept_as_they_are():
    mine = memory()
    value = torch.ones(3)
    mine["debt"] = value
    mine.commit()
    assert mine["debt"] is value


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
