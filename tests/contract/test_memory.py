"""The memory of a worker: zero at first, staged within a step, committed or dropped at its end."""

import pytest
import torch

from laconic.contract import Memory, ModelSpec, Rule, Slot
from laconic.errors import ContractError
from support.memories import memory_of as memory
from support.memories import slots_of

ONES = torch.ones(3, dtype=torch.float64)
NUMBERS = torch.arange(7, dtype=torch.float64)


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
    mine["residual"] = ONES
    assert "residual" in mine
    assert list(mine) == []  # staged, not committed
    assert torch.equal(mine["residual"], ONES)
    mine.commit()
    assert list(mine) == ["residual"]
    mine["residual"] = mine["residual"] + 1
    assert mine["residual"].tolist() == [2.0] * 3
    mine.commit()
    assert mine["residual"].tolist() == [2.0] * 3


def test_a_dropped_step_leaves_no_trace():
    mine = memory()
    mine["residual"] = ONES
    mine.set_number("lr", 0.5)
    mine.commit()
    mine["residual"] = 9 * ONES
    mine["momentum"] = 9 * ONES
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
    value = ONES.clone()
    mine["residual"] = value
    mine.commit()
    assert mine["residual"] is value


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
    mine["residual"] = ONES
    mine.commit()
    saved = mine.saved()
    saved["residual"].fill_(5)
    saved["new"] = torch.zeros_like(ONES)
    assert mine["residual"].tolist() == [1.0] * 3
    assert "new" not in mine


def test_nothing_is_saved_in_the_middle_of_a_step():
    mine = memory()
    mine["residual"] = ONES
    with pytest.raises(AssertionError, match=r"in the middle of a step: \['residual'\]"):
        mine.saved()
    mine.drop()
    assert mine.saved() == {}


def test_what_is_restored_is_a_copy_and_replaces_everything():
    mine, other = memory(), memory()
    mine["residual"] = ONES
    mine.set_number("lr", 0.5)
    mine.commit()
    saved = mine.saved()
    other["momentum"] = ONES
    other.commit()
    other["stored"] = ONES
    other.restore(saved)
    assert set(other) == {"residual", "lr"}
    assert "momentum" not in other
    assert "stored" not in other
    assert other["residual"].dtype == saved["residual"].dtype
    saved["residual"].fill_(5)
    assert other["residual"].tolist() == [1.0] * 3
    assert other.number("lr", 9.0) == 0.5
    other["residual"] = torch.zeros_like(ONES)
    other.commit()
    assert mine["residual"].tolist() == [1.0] * 3


# What may be written and loaded.

TABLE = {
    "residual": Slot(rule=Rule.SUM),
    "lr": Slot.number(Rule.SAME),
    "stored.<rank>": Slot(rule=Rule.PER_WORKER),
    "positions": Slot(
        rule=Rule.PER_WORKER, dtype=torch.int32, length=lambda spec: spec.d - 1, may_be_shorter=True, values="indices"
    ),
    "codes": Slot(rule=Rule.DROP, dtype=torch.uint8, length=2, values="bits"),
}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("residuals", ONES, "declares no memory 'residuals', only codes, lr, positions, residual, stored.<rank>"),
        ("stored", ONES, "declares no memory 'stored'"),
        ("stored.4", ONES, "declares no memory 'stored.4'"),
        ("stored.<rank>", ONES, "declares no memory 'stored.<rank>'"),
        ("residual", ONES.float(), "'residual' is torch.float32; Test.worker_slots declares torch.float64"),
        ("residual", ONES[:2], "'residual' has 2 elements; Test.worker_slots declares 3"),
        ("lr", ONES, "'lr' has 3 elements; Test.worker_slots declares 1"),
        ("positions", ONES.int(), "'positions' has 3 elements; Test.worker_slots declares at most 2"),
        ("positions", ONES[:1].long(), "'positions' is torch.int64"),
    ],
)
def test_a_write_that_the_table_does_not_declare_is_refused(name, value, message):
    mine = memory(table=TABLE)
    with pytest.raises(ContractError) as caught:
        mine[name] = value
    assert message in str(caught.value)
    mine.commit()
    assert not list(mine)


def test_every_write_that_the_table_declares_is_stored():
    mine = memory(table=TABLE)
    for rank in range(4):
        mine[f"stored.{rank}"] = rank * ONES
    mine["positions"] = torch.zeros(0, dtype=torch.int32)
    mine["positions"] = torch.zeros(2, dtype=torch.int32)
    mine["codes"] = torch.zeros(2, dtype=torch.uint8)
    mine.commit()
    assert mine["stored.3"].tolist() == [3.0] * 3
    assert len(list(mine)) == 6


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("nothing", ONES, "declares no memory 'nothing'"),
        ("stored.4", ONES, "declares no memory 'stored.4'"),
        ("residual", ONES.float(), "is torch.float32"),
        ("residual", ONES[:2], "has 2 elements"),
        ("residual", torch.tensor([0.0, float("inf"), 0.0], dtype=torch.float64), "has inf or NaN"),
        ("stored.1", torch.tensor([0.0, float("nan"), 0.0], dtype=torch.float64), "has inf or NaN"),
        ("positions", torch.tensor([0, 3], dtype=torch.int32), "has indices 0 .. 3, which must be within 0 .. 2"),
        ("positions", torch.tensor([-1, 2], dtype=torch.int32), "has indices -1 .. 2"),
    ],
)
def test_a_value_that_does_not_fit_its_slot_is_refused_before_anything_is_loaded(name, value, message):
    mine = memory(table=TABLE)
    mine["residual"] = 5 * ONES
    mine.commit()
    with pytest.raises(ValueError, match="state_dict: ") as caught:
        mine.restore({"lr": torch.tensor(1.0, dtype=torch.float64), name: value})
    assert message in str(caught.value)
    assert mine.saved().keys() == {"residual"}
    assert torch.equal(mine["residual"], 5 * ONES)


# The memory of a slice.


def seven() -> Memory:
    return Memory(slots_of(7, table=TABLE, spec=ModelSpec.of_sizes(4, 3)))


def test_the_memories_of_slices_are_saved_as_one():
    mine = seven()
    slices = [mine.part(offset, size) for offset, size in ((0, 2), (2, 3), (5, 2))]
    for part, value in zip(slices, NUMBERS.split([2, 3, 2]), strict=True):
        part["residual"] = value
        part.set_number("lr", 0.5)
        part.commit()
    assert torch.equal(mine.saved()["residual"], NUMBERS)
    assert float(mine.saved()["lr"]) == 0.5


def test_a_slice_starts_with_what_the_full_memory_has_and_is_the_same_object_when_asked_for_again():
    mine = seven()
    mine["residual"] = NUMBERS
    mine.commit()
    part = mine.part(2, 3)
    assert part["residual"].tolist() == [2, 3, 4]
    assert part["stored.0"].shape == (3,)
    assert mine.part(2, 3) is part
    assert mine.part(0, 7) is mine


def test_slices_are_restored_with_the_full_memory():
    mine = seven()
    slices = [mine.part(0, 4), mine.part(4, 3)]
    slices[0]["residual"] = torch.zeros(4, dtype=torch.float64)
    slices[0].commit()
    mine.restore({"residual": NUMBERS})
    assert [part["residual"].tolist() for part in slices] == [[0, 1, 2, 3], [4, 5, 6]]
    assert torch.equal(mine.saved()["residual"], NUMBERS)


def test_a_slice_declares_lengths_of_its_own():
    part = seven().part(2, 3)
    part["positions"] = torch.zeros(2, dtype=torch.int32)
    with pytest.raises(ContractError, match="at most 2"):
        part["positions"] = torch.zeros(3, dtype=torch.int32)
