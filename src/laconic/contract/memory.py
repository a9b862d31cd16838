"""The state that one worker or one server keeps from round to round, and the buffers that it borrows for one.

A round either takes effect on all ranks or on none. So what a step writes is staged; the driver commits it at the end
of the round, or drops it when a rank aborts the round.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool
from laconic.contract.slots import Slots
from laconic.errors import ContractError, NonFiniteError


class Memory:
    """Named tensors. A name that was never written reads as a zero vector of the worker's or server's length.

    Reading sees what the current step has written. Values are replaced, never changed in place.
    """

    def __init__(self, slots: Slots, device: torch.device | None = None) -> None:
        """Make an empty memory.

        Args:
            slots: what may be written.
            device: the device of the vectors that unwritten names read as.
        """
        self.slots = slots
        self._zero = torch.zeros((), dtype=slots.dtype, device=device).expand(slots.count)
        self.committed: dict[str, Tensor] = {}
        """The values after the last round that had an effect, by name."""
        self._staged: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[torch.dtype, int]] = {}  # of the names written so far
        self._parts: dict[int, Memory] = {}  # by offset

    @property
    def dtype(self) -> torch.dtype:
        """The type of the vectors that unwritten names read as."""
        return self._zero.dtype

    def __getitem__(self, name: str) -> Tensor:
        if name in self._staged:
            return self._staged[name]
        return self.committed.get(name, self._zero)

    def __setitem__(self, name: str, value: Tensor) -> None:
        """Stage a value.

        Raises:
            ContractError: The method's slots do not declare the name, or declare another type or length.
        """
        if name not in self._shapes:
            self._shapes[name] = self.slots.shape_of(name)
        shape = self._shapes[name]
        if value.dtype is not shape[0] or value.nbytes != shape[1] * value.itemsize:
            mistake = self.slots.mistake_in(name, value)
            if mistake:
                raise ContractError(f"a value for the memory {name!r} {mistake}")
        self._staged[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._staged or name in self.committed

    def __iter__(self) -> Iterator[str]:
        return iter(self.committed)

    def number(self, name: str, default: float) -> float:
        """Return a stored number, or `default` before it was first set."""
        return float(self[name]) if name in self else default

    def set_number(self, name: str, value: float) -> None:
        """Store one number, in float64. Raises NonFiniteError, which aborts the round, for inf and NaN."""
        if not math.isfinite(value):
            raise NonFiniteError
        self[name] = torch.tensor(value, dtype=torch.float64)

    @property
    def written(self) -> Mapping[str, Tensor]:
        """What this step has written, by name."""
        return self._staged

    def commit(self) -> None:
        """Commit what this step wrote."""
        self.committed |= self._staged
        self._staged = {}

    def revert(self, slices: Sequence[tuple[int, int]]) -> None:
        """Take back what this step wrote for these slices (start, stop), in all memories as long as the vector."""
        for name, value in self._staged.items():
            slot = self.slots.find(name)
            is_new = name not in self.committed
            if slot is None or slot.length != "d" or (slot.holds_parameters and is_new):
                continue
            old = self._zero.to(value.dtype) if is_new else self.committed[name]
            if all(torch.equal(value[start:stop], old[start:stop]) for start, stop in slices):
                continue
            self._staged[name] = value = value.clone()  # others may hold the one that the step wrote
            for start, stop in slices:
                value[start:stop] = old[start:stop]

    def drop(self) -> None:
        """Drop what this step wrote."""
        self._staged = {}

    def part(self, offset: int, size: int) -> "Memory":
        """Return the memory of the slice offset .. offset + size - 1, which is saved and restored with this one.

        The slices that are asked for must not overlap; asked for again, a slice gives the same object. Each is
        committed or dropped on its own.
        """
        if size == self.slots.count:
            return self
        if offset not in self._parts:
            slots = self.slots
            spec = slots.spec.part(slots.offset - slots.spec.offset + offset, size)
            part = Memory(replace(slots, spec=spec, offset=slots.offset + offset, count=size), self._zero.device)
            part.restore(self._slice(self.committed, offset, size))
            self._parts[offset] = part
            if sum(each.slots.count for each in self._parts.values()) == slots.count:
                self.committed = {}  # the parts have all of it
        assert self._parts[offset].slots.count == size, f"slices overlap at {offset}"
        return self._parts[offset]

    def _slice(self, values: Mapping[str, Tensor], offset: int, size: int) -> dict[str, Tensor]:
        return {
            name: value[offset : offset + size] if self.slots.is_vector(name) else value
            for name, value in values.items()
        }

    def saved(self) -> dict[str, Tensor]:
        """Return a copy of all committed values. Nothing may be staged."""
        assert not self._staged, f"saved in the middle of a step: {sorted(self._staged)}"
        if not self._parts:
            return {name: value.clone() for name, value in self.committed.items()}
        parts = [part for _, part in sorted(self._parts.items())]
        assert sum(part.slots.count for part in parts) == self.slots.count, "some slices have no memory yet"
        saved = [part.saved() for part in parts]
        return {
            name: torch.cat([values[name] for values in saved]) if self.slots.is_vector(name) else value
            for name, value in saved[0].items()
        }

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Replace all values by copies of those in `saved`.

        Raises:
            ValueError: A value does not fit its slot. Nothing has changed then.
        """
        self.slots.check_saved(saved)
        self._staged = {}
        device = self._zero.device
        copies = {
            name: value.to(device, copy=True) if self.slots.is_vector(name) else value.clone()
            for name, value in saved.items()
        }
        self.committed = {} if self._parts else copies
        for offset, part in self._parts.items():
            part.restore(self._slice(saved, offset, part.slots.count))


class Scratch:
    """Vectors (count,) to write into. Each call borrows one for this round.

    A borrowed vector survives the round in two cases: while a memory holds it, and if it is a result of the round,
    until `reclaim` finds that it is not used any more. All others are reclaimed at the end of the round.
    """

    def __init__(self, pool: VectorPool) -> None:
        """`pool`: where vectors come from; several may share one."""
        self._pool = pool
        self._borrowed: dict[int, Tensor] = {}  # in this round, by storage
        self._held: dict[int, Tensor] = {}  # by memories, by storage
        self._results: list[dict[int, Tensor]] = []  # of the latest rounds, oldest first, by storage
        self.shared_with: Sequence[Memory] = ()
        """Memories of others that may hold vectors of this scratch."""
        self.foreign: list[Tensor] = []
        """What memories hold since the last round that is no vector of this scratch: of another one, or a view."""

    def __call__(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return a vector (count,) with arbitrary content, of the pool's type or of another."""
        free = self._pool.free[dtype or self._pool.dtype]
        vector = free.pop() if free else self._pool.take(dtype)
        self._borrowed[vector.data_ptr()] = vector  # where its storage begins
        return vector

    def end_round(self, held: Iterable[Tensor], results: Sequence[Tensor] = ()) -> None:
        """Reclaim the vectors of this round, except for those that survive it.

        Args:
            held: the committed values of all memories that may hold vectors of this scratch.
            results: the results of the round, which are in use until `reclaim`.
        """
        ours, self.foreign = self._held | self._borrowed, list(held)
        self._borrowed = {}
        if not ours:
            return
        for memory in self.shared_with:
            self.foreign += [*memory.committed.values(), *memory.written.values()]
        in_memories: set[int | None] = set()
        if self.foreign:  # mostly they are vectors as they were lent, which are known without asking where they lie
            place_of = dict(zip(map(id, ours.values()), ours, strict=True))
            in_memories = set(map(place_of.get, map(id, self.foreign)))
            self.foreign = [value for value in self.foreign if id(value) not in place_of] if None in in_memories else []
            if self.foreign:
                in_memories |= _storages_of(self.foreign)
        in_use = _storages_of(results) if results else ()
        self._held = {}
        returned: dict[int, Tensor] = {}
        unused: list[Tensor] = []
        for place in ours:
            vector = ours[place]
            if place in in_memories:
                self._held[place] = vector
            elif place in in_use:
                returned[place] = vector
            else:
                unused += (vector,)
        if unused:
            self._pool.give(unused)
        if returned:  # of the earlier results, the last ones may still be in use
            self._results = [*self._results[-1:], returned]

    def hand_over(self, vector: Tensor, to: "Scratch") -> bool:
        """Give a vector of this round to another scratch of the same pool; return whether that may use it.

        It may not if this scratch lends it from another pool. A vector that is not of this scratch stays where it is.
        """
        place = storage_of(vector)
        if place not in self._borrowed:
            return place not in self._held
        if to._pool is not self._pool:
            return False
        to._borrowed[place] = self._borrowed.pop(place)
        return True

    def reclaim(self, in_use: Iterable[Tensor] = ()) -> None:
        """Reclaim earlier results, except for those that share memory with a tensor that is in use."""
        results, self._results = self._results, []
        if not results:
            return
        used_storages = _storages_of(in_use)
        for of_round in results:
            if used_storages.isdisjoint(of_round):
                self._pool.give(of_round.values())
                continue
            self._results.append({place: vector for place, vector in of_round.items() if place in used_storages})
            self._pool.give([vector for place, vector in of_round.items() if place not in used_storages])


def storage_of(tensor: Tensor) -> int:
    """Return the address of a tensor's storage, which tensors over the same memory share."""
    return tensor.untyped_storage().data_ptr()


def _storages_of(tensors: Iterable[Tensor]) -> set[int]:
    """Return where the storages of tensors begin."""
    return set(map(torch.UntypedStorage.data_ptr, map(Tensor.untyped_storage, tensors)))
