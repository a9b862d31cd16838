"""Memories as they are saved, by parameter name, and what becomes of them with another number of workers or servers.

A vector is saved as {parameter: {offset within the parameter: values}}. So it can be loaded by servers of other slices.
Indices are saved as those of the full vector.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.contract.slots import Rule, Slot, Slots, not_plain, rank_in, slot_of

Saved = Mapping[str, Any]  # a side's memories by name: a tensor, or a vector by parameter and offset


def by_parameter(memories: Mapping[str, Tensor], slots: Slots) -> dict[str, Any]:
    """Return a copy of a side's memories as they are saved, vectors by parameter name and offset."""
    found: dict[str, Any] = {}
    for name, value in memories.items():
        slot = slots.find(name)
        assert slot is not None, f"{name} was staged without a slot"
        if slot.length == "d":
            found[name] = _by_tensor(value, slots)
        else:
            found[name] = value + slots.offset if slot.values == "indices" else value.clone()
    return found


def _by_tensor(vector: Tensor, slots: Slots) -> dict[str, dict[int, Tensor]]:
    """Return the elements of a side's vector (count,) by parameter name and offset within the parameter."""
    found = {}
    begin = slots.offset - slots.spec.offset
    for tensor in slots.spec.tensors:
        start, stop = max(begin, tensor.offset), min(begin + slots.count, tensor.offset + tensor.size)
        if start < stop:
            found[tensor.name] = {start - tensor.offset: vector[start - begin : stop - begin].clone()}
    return found


def read_saved(parts: Sequence[Saved], slots: Slots, *, missing_as_zero: bool = False) -> dict[str, Tensor]:
    """Return the memories of one side, from those of all servers that were saved, or of one worker.

    Args:
        parts: what each of them saved; together they must cover this side's slice.
        slots: the side's slots.
        missing_as_zero: whether coordinates that no part has are zero.

    Raises:
        ValueError: They do not cover the slice, or a memory is not declared.
    """
    found = {}
    for name in _names(parts):
        slot = slot_of(slots.table, name)
        if slot is None:
            raise ValueError(f"state_dict: {slots.owner} declares no memory {name!r}")
        having = [part for part in parts if name in part]
        if slot.length == "d":
            found[name] = _vector(
                [part[name] for part in having], name, slot.dtype or slots.dtype, slots, missing_as_zero
            )
        elif slot.values == "indices" or slot.at:
            found[name] = _sparse(having, name, slot, slots)
        else:
            found[name] = having[0][name]
    return found


def _names(parts: Iterable[Saved]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _vector(parts: Sequence[Any], name: str, dtype: torch.dtype, slots: Slots, missing_as_zero: bool) -> Tensor:
    """Return a side's vector (count,), put together from what was saved by parameter and offset."""
    offsets = {tensor.name: slots.spec.offset + tensor.offset for tensor in slots.spec.tensors}
    known = [
        (offsets[parameter] + offset - slots.offset, values)
        for part in parts
        for parameter, by_offset in part.items()
        for offset, values in by_offset.items()
        if parameter in offsets
    ]
    for _, values in known:
        mistake = not_plain(values)
        if mistake or values.dtype != dtype:
            mistake = mistake or f"is {values.dtype}; {slots.owner} declares {dtype}"
            raise ValueError(f"state_dict: the memory {name!r} {mistake}")
    vector = torch.zeros(slots.count, dtype=dtype, device=known[0][1].device if known else None)
    end = 0
    for place, values in sorted(known, key=lambda one: one[0]):
        start, stop = max(place, 0), min(place + values.numel(), slots.count)
        if missing_as_zero:
            end = max(end, min(start, slots.count))
        if start == end < stop:
            vector[start:stop] = values[start - place : stop - place]
            end = stop
    if end < slots.count and not missing_as_zero:
        raise ValueError(
            f"state_dict: the memory {name!r} has nothing for coordinate {slots.offset + end}, or has it twice; it "
            f"must have coordinates {slots.offset} .. {slots.offset + slots.count - 1}, those of the same parameters"
        )
    return vector


def _sparse(parts: Sequence[Saved], name: str, slot: Slot, slots: Slots) -> Tensor:
    """Return the indices that are in a side's slice, or the values that belong to them."""
    at = slot.indices_of(name)
    found = []
    for part in parts:
        if part[at].numel() and not slot.at:
            low, high = (int(end) for end in part[at].aminmax())
            if low < slots.spec.offset or high >= slots.spec.stop:
                within = f"{slots.spec.offset} .. {slots.spec.stop - 1}"
                raise ValueError(
                    f"state_dict: the memory {name!r} has indices {low} .. {high}, which must be within {within}"
                )
        inside = (part[at] >= slots.offset) & (part[at] < slots.offset + slots.count)
        found.append(part[name][inside] if slot.at else part[name][inside] - slots.offset)
    return torch.cat(found)


def check_vector(name: str, value: Tensor, like: Tensor, *, is_finite: bool = True) -> None:
    """Raise ValueError unless a saved vector is a plain one of the length and type of `like`.

    It must have no inf or NaN, unless `is_finite` is False.
    """
    mistake = not_plain(value)
    if not mistake and (value.shape != like.shape or value.dtype != like.dtype):
        mistake = (
            f"is {value.dtype} of shape {tuple(value.shape)}; it must be {like.dtype} of shape {tuple(like.shape)}"
        )
    if is_finite and not mistake and not bool(torch.isfinite(value).all()):
        mistake = "has inf or NaN"
    if mistake:
        raise ValueError(f"state_dict: {name} {mistake}")


def resized_workers(
    saved: Mapping[int, Mapping[str, Tensor]], table: Mapping[str, Slot], n_workers: int, *, per_worker: bool = True
) -> list[dict[str, Tensor]]:
    """Return the memories of `n_workers` workers, from those of others, by the rules of their slots.

    Args:
        saved: by rank, what `read_saved` returned; of some workers there may be nothing.
        table: the method's slots of a worker.
        n_workers: the new number. The workers of ranks below it stay; those of which nothing is saved are new.
        per_worker: whether what workers and servers know of each other alone is kept.
    """
    found: list[dict[str, Tensor]] = [{} for _ in range(n_workers)]
    for name in _names(saved.values()):
        slot = slot_of(table, name)
        if slot is None or _is_dropped(slot, per_worker) or (rank_in(name) or 0) >= n_workers:
            continue
        having = {rank: memory[name] for rank, memory in saved.items() if name in memory}
        staying = {rank: value for rank, value in having.items() if rank < n_workers}
        leaving = [value for rank, value in having.items() if rank >= n_workers]
        for rank, value in staying.items():
            found[rank][name] = value
        if slot.rule is Rule.SUM and leaving:
            found[0][name] = sum(leaving, staying.get(0, torch.zeros_like(leaving[0])))
        known = list(staying.values()) or leaving
        for rank in set(range(n_workers)) - {*saved}:
            if slot.rule is Rule.SAME:
                found[rank][name] = known[0]
            elif slot.rule is Rule.MEAN:  # one that was never written is zero
                n_known = sum(rank < n_workers for rank in saved) or len(saved)
                found[rank][name] = sum(known[1:], known[0]) / n_known
    return found


def resized_server(
    saved: Saved, table: Mapping[str, Slot], n_workers: int, known: Collection[int], *, per_worker: bool = True
) -> dict[str, Any]:
    """Return what is left of a server's saved memories with other workers; see `resized_workers`.

    Args:
        saved: the server's memories.
        table: the method's slots of a server.
        n_workers: the new number of workers.
        known: ranks of the workers that were saved.
        per_worker: whether what workers and servers know of each other alone is kept.
    """
    found = {}
    for name, value in saved.items():
        slot, rank = slot_of(table, name), rank_in(name)
        if rank is not None and (rank >= n_workers or rank not in known):
            continue
        if slot is None or not _is_dropped(slot, per_worker):  # one without a slot is refused when it is loaded
            found[name] = value
    return found


def _is_dropped(slot: Slot, per_worker: bool) -> bool:
    return slot.rule is Rule.DROP or (slot.rule is Rule.PER_WORKER and not per_worker)
