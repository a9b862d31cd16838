"""What one worker or one server remembers from round to round.

A round either happens on every rank or on none. So what a step writes is staged, and the driver commits it
when the round is through, or drops it when some rank had to call the round off.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool


class Memory:
    """Named tensors. A name that was never written reads as a zero vector of the worker's or server's length.

    Reading sees what the current step has written. Values are replaced, never changed in place. Vectors that a step
    takes with `scratch` come back at its end, except for those that a name holds or that were handed out as its result.
    """

    def __init__(
        self, count: int, dtype: torch.dtype, device: torch.device | None = None, pool: VectorPool | None = None
    ) -> None:
        """`count`: length of the vectors that unwritten names read as. pool: shared with others of the same length."""
        self._zero = torch.zeros((), dtype=dtype, device=device).expand(count)
        self._pool = pool or VectorPool(count, dtype, device)
        self._committed: dict[str, Tensor] = {}
        self._staged: dict[str, Tensor] = {}
        self._borrowed: dict[int, Tensor] = {}  # in this step, by storage
        self._held: dict[int, Tensor] = {}  # of the pool's, in which kept values are
        self._outstanding: list[tuple[int, Tensor]] = []  # of the pool's, the latest results, oldest first

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
        """A remembered number, or `default` before it was first set."""
        return float(self[name]) if name in self else default

    def set_number(self, name: str, value: float) -> None:
        """Remember one number, in float64."""
        self[name] = torch.tensor(value, dtype=torch.float64)

    def scratch(self, dtype: torch.dtype | None = None) -> Tensor:
        """A vector (count,) to write into, with anything in it; of the memory's own type or of another."""
        vector = self._pool.take(dtype)
        self._borrowed[_storage(vector)] = vector
        return vector

    @property
    def borrowed(self) -> tuple[Tensor, ...]:
        """The vectors that this step has taken with `scratch`."""
        return tuple(self._borrowed.values())

    def release(self, vector: Tensor) -> None:
        """Never give out this vector of this step again: somebody else keeps it."""
        self._borrowed.pop(_storage(vector), None)

    def holds(self, vector: Tensor) -> bool:
        """Whether something that is kept lies where `vector` does."""
        place = _storage(vector)
        return any(_storage(value) == place for value in self._committed.values())

    def commit(self, result: Tensor | None = None) -> None:
        """Keep what this step wrote. `result`: what the step hands out, which stays out until `reclaim`."""
        self._committed |= self._staged
        self._staged = {}
        ours = self._held | self._borrowed
        used = {_storage(value) for value in self._committed.values()}
        self._held = {place: vector for place, vector in ours.items() if place in used}
        result_storage = None if result is None else _storage(result)
        for place, vector in ours.items():
            if place == result_storage and place not in used:
                self._outstanding = [
                    *self._outstanding[-1:],
                    (place, vector),
                ]  # of those before it, one may be in use still
            elif place not in used:
                self._pool.give(vector)
        self._borrowed = {}

    def reclaim(self, is_used: Callable[[Tensor], bool] = lambda _: False) -> None:
        """Use the results that were handed out again, except for those of which `is_used` says that they are in use."""
        outstanding, self._outstanding = self._outstanding, []
        for place, vector in outstanding:
            if is_used(vector):
                self._outstanding.append((place, vector))
            else:
                self._pool.give(vector)

    def drop(self) -> None:
        """Forget what this step wrote."""
        self._staged = {}
        for vector in self._borrowed.values():
            self._pool.give(vector)
        self._borrowed = {}

    def saved(self) -> dict[str, Tensor]:
        """A copy of everything kept; nothing may be staged."""
        assert not self._staged, f"saved in the middle of a step: {sorted(self._staged)}"
        return {name: value.clone() for name, value in self._committed.items()}

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Replace everything by a copy of `saved`."""
        self.drop()
        self._held = {}
        self._committed = {name: value.clone() for name, value in saved.items()}


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr()
