"""Memories as they are saved, by parameter name, and what becomes of them with another number of workers or servers.

A vector is saved as {parameter: {offset within the parameter: values}}. So it can be loaded by servers of other slices.
Indices are saved as those of the full vector.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from laconic.contract.slots import Rule, Slot, Slots, rank_in, slot_of

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


def read_saved(parts: Sequence[Saved], slots: Slots) -> dict[str, Tensor]:
    """Return the memories of one side, from those of all servers that were saved, or of one worker.

    Args:
        parts: what each of them saved; together they must cover this side's slice.
        slots: the side's slots.

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
            found[name] = _vector([part[name] for part in having], name, slot.dtype or slots.dtype, slots)
        elif slot.values == "indices" or slot.at:
            found[name] = _sparse(having, name, slot, slots)
        else:
            found[name] = having[0][name]
    return found


def _names(parts: Iterable[Saved]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))


def _vector(parts: Sequence[Any], name: str, dtype: torch.dtype, slots: Slots) -> Tensor:
    """Return a side's vector (count,), put together from what was saved by parameter and offset."""
    offsets = {tensor.name: slots.spec.offset + tensor.offset for tensor in slots.spec.tensors}
    known = [
        (offsets[parameter] + offset - slots.offset, values)
        for part in parts
        for parameter, by_offset in part.items()
        for offset, values in by_offset.items()
        if parameter in offsets
    ]
    wrong = [values.dtype for _, values in known if values.dtype != dtype]
    if wrong:
        raise ValueError(f"state_dict: the memory {name!r} is {wrong[0]}; {slots.owner} declares {dtype}")
    vector = torch.empty(slots.count, dtype=dtype, device=known[0][1].device if known else None)
    end = 0
    for place, values in sorted(known, key=lambda one: one[0]):
        start, stop = max(place, 0), min(place + values.numel(), slots.count)
        if start == end < stop:
            vector[start:stop] = values[start - place : stop - place]
            end = stop
    if end < slots.count:
        raise ValueError(
            f"state_dict: the memory {name!r} has nothing for coordinate {slots.offset + end}, or has it twice; it "
            f"must have coordinates {slots.offset} .. {slots.offset + slots.count - 1}, those of the same parameters"
        )
    return vector


def _sparse(parts: Sequence[Saved], name: str, slot: Slot, slots: Slots) -> Tensor:
    """Return the indices that are in a side's slice, or the values that belong to them."""
    rank = rank_in(name)
    at = slot.at.replace("<rank>", str(rank)) if slot.at else name
    found = []
    for part in parts:
        inside = (part[at] >= slots.offset) & (part[at] < slots.offset + slots.count)
        found.append(part[name][inside] if slot.at else part[name][inside] - slots.offset)
    return torch.cat(found)


def check_vector(name: str, value: Tensor, like: Tensor) -> None:
    """Raise ValueError unless a saved vector has the length and type of `like`, and no inf or NaN."""
    if value.shape != like.shape or value.dtype != like.dtype:
        raise ValueError(
            f"state_dict: {name} is {value.dtype} of shape {tuple(value.shape)}; it must be {like.dtype} of shape "
            f"{tuple(like.shape)}"
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"state_dict: {name} has inf or NaN")


def resized_workers(
    saved: Sequence[Mapping[str, Tensor]], table: Mapping[str, Slot], n_workers: int
) -> list[dict[str, Tensor]]:
    """Return the memories of `n_workers` workers, from those of another number, by the rules of their slots.

    Args:
        saved: by worker, what `read_saved` returned.
        table: the method's slots of a worker.
        n_workers: the new number. The workers of ranks below it stay.
    """
    stayers, leavers = saved[:n_workers], saved[n_workers:]
    found: list[dict[str, Tensor]] = [{} for _ in range(n_workers)]
    for name in _names(saved):
        slot = slot_of(table, name)
        if slot is None or slot.rule is Rule.DROP or (rank_in(name) or 0) >= n_workers:
            continue
        for rank, stayer in enumerate(stayers):
            if name in stayer:
                found[rank][name] = stayer[name]
        leaving = [leaver[name] for leaver in leavers if name in leaver]
        if slot.rule is Rule.SUM and leaving:
            found[0][name] = sum(leaving, stayers[0].get(name, torch.zeros_like(leaving[0])))
        staying = [stayer[name] for stayer in stayers if name in stayer]
        for newcomer in found[len(stayers) :]:
            if slot.rule is Rule.SAME and staying:
                newcomer[name] = staying[0]
            elif slot.rule is Rule.MEAN and staying:  # one that was never written is zero
                newcomer[name] = sum(staying[1:], staying[0]) / len(stayers)
    return found


def resized_server(saved: Saved, table: Mapping[str, Slot], n_workers: int) -> dict[str, Any]:
    """Return what is left of a server's saved memories with another number of workers."""
    return {
        name: value
        for name, value in saved.items()
        if (rank_in(name) or 0) < n_workers
        and ((slot := slot_of(table, name)) is None or slot.rule is not Rule.DROP)  # None: refused when it is loaded
    }
