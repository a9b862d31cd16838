"""The state that one worker or one server keeps from round to round.

A round either takes effect on all ranks or on none. So what a step writes is staged; the driver commits it at the end
of the round, or drops it when a rank aborts the round.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool


class Memory:
    """Named tensors. A name that was never written reads as a zero vector of the worker's or server's length.

    Reading sees what the current step has written. Values are replaced, never changed in place. Vectors that a step
    borrows with `scratch` are reclaimed at its end, except for those that a name holds and the step's result.
    """

    def __init__(
        self, count: int, dtype: torch.dtype, device: torch.device | None = None, pool: VectorPool | None = None
    ) -> None:
        """Make an empty memory.

        Args:
            count: length of the vectors that unwritten names read as.
            dtype: their type.
            device: their device.
            pool: where vectors are borrowed from; may be shared with memories of the same length.
        """
        self._zero = torch.zeros((), dtype=dtype, device=device).expand(count)
        self._pool = pool or VectorPool(count, dtype, device)
        self._committed: dict[str, Tensor] = {}
        self._staged: dict[str, Tensor] = {}
        self._borrowed: dict[int, Tensor] = {}  # by this step, by storage
        self._held: dict[int, Tensor] = {}  # of the pool, in use by committed values
        self._outstanding: list[tuple[int, Tensor]] = []  # of the pool, the latest results, oldest first

    @property
    def dtype(self) -> torch.dtype:
        """The type of the vectors that unwritten names read as."""
        return self._zero.dtype

    def __getitem__(self, name: str) -> Tensor:
        if name in self._staged:
            return self._staged[name]
        return self._committed.get(name, self._zero)

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._staged[name] = value

    def __contains__(self, name: str) -> bool:
        return name in self._staged or name in self._committed

    def __iter__(self) -> Iterator[str]:
        return iter(self._committed)

    def number(self, name: str, default: float) -> float:
        """Return a stored number, or `default` before it was first set."""
        return float(self[name]) if name in self else default

    def set_number(self, name: str, value: float) -> None:
        """Store one number, in float64."""
        self[name] = torch.tensor(value, dtype=torch.float64)

    def scratch(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return a vector (count,) with arbitrary content to write into, of the memory's type or of another."""
        vector = self._pool.take(dtype)
        self._borrowed[_storage(vector)] = vector
        return vector

    @property
    def borrowed(self) -> tuple[Tensor, ...]:
        """The vectors that this step has borrowed with `scratch`."""
        return tuple(self._borrowed.values())

    def release(self, vector: Tensor) -> None:
        """Do not reclaim this borrowed vector: its new owner keeps it."""
        self._borrowed.pop(_storage(vector), None)

    def holds(self, vector: Tensor) -> bool:
        """Whether a committed value shares the storage of `vector`."""
        place = _storage(vector)
        return any(_storage(value) == place for value in self._committed.values())

    def commit(self, result: Tensor | None = None) -> None:
        """Commit what this step wrote. `result`: the step's result, which is not used again until `reclaim`."""
        self._committed |= self._staged
        self._staged = {}
        ours = self._held | self._borrowed
        used = {_storage(value) for value in self._committed.values()}
        self._held = {place: vector for place, vector in ours.items() if place in used}
        result_storage = None if result is None else _storage(result)
        for place, vector in ours.items():
            if place == result_storage and place not in used:
                # Of the earlier results, the last one may still be in use.
                self._outstanding = [*self._outstanding[-1:], (place, vector)]
            elif place not in used:
                self._pool.give(vector)
        self._borrowed = {}

    def reclaim(self, is_used: Callable[[Tensor], bool] = lambda _: False) -> None:
        """Reclaim the vectors of earlier results, except for those that are still in use by `is_used`."""
        outstanding, self._outstanding = self._outstanding, []
        for place, vector in outstanding:
            if is_used(vector):
                self._outstanding.append((place, vector))
            else:
                self._pool.give(vector)

    def drop(self) -> None:
        """Drop what this step wrote."""
        self._staged = {}
        for vector in self._borrowed.values():
            self._pool.give(vector)
        self._borrowed = {}

    def saved(self) -> dict[str, Tensor]:
        """Return a copy of all committed values. Nothing may be staged."""
        assert not self._staged, f"saved in the middle of a step: {sorted(self._staged)}"
        return {name: value.clone() for name, value in self._committed.items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Replace all values by copies of those in `saved`."""
        self.drop()
        self._held = {}
        self._committed = {name: value.clone() for name, value in saved.items()}


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
