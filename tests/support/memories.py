"""Memories of one side alone, outside a session."""

from collections.abc import Mapping

import torch

from laconic.contract import Memory, ModelSpec, Rule, Slot, Slots

ANY = {name: Slot(rule=Rule.SAME) for name in ("residual", "momentum", "average", "stored")} | {
    "lr": Slot.number(Rule.SAME)
}


def slots_of(
    count: int = 3,
    dtype: torch.dtype = torch.float64,
    table: Mapping[str, Slot] = ANY,
    *,
    n_workers: int = 4,
    spec: ModelSpec | None = None,
    offset: int = 0,
) -> Slots:
    """The slots of a side with `count` coordinates, of a model of one tensor unless `spec` is given."""
    return Slots(
        table=table, owner="Test.worker_slots", spec=spec or ModelSpec.of_sizes(count), dtype=dtype,
        n_workers=n_workers, offset=offset, count=count,
    )  # fmt: skip


def memory_of(count: int = 3, dtype: torch.dtype = torch.float64, table: Mapping[str, Slot] = ANY) -> Memory:
    """An empty memory."""
    return Memory(slots_of(count, dtype, table))
