"""Buffers of a round: vectors that a step writes into, and that later rounds use again."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from laconic.buffer_pool import VectorPool


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

    def __call__(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return a vector (count,) with arbitrary content, of the pool's type or of another."""
        vector = self._pool.take(dtype)
        self._borrowed[vector.untyped_storage().data_ptr()] = vector
        return vector

    def end_round(self, held: Iterable[Tensor], results: Sequence[Tensor] = ()) -> None:
        """Reclaim the vectors of this round, except for those that survive it.

        Args:
            held: the committed values of all memories that may hold vectors of this scratch.
            results: the results of the round, which are in use until `reclaim`.
        """
        ours = self._held | self._borrowed
        self._borrowed = {}
        if not ours:
            return
        in_memories = {value.untyped_storage().data_ptr() for value in held}
        in_use = {result.untyped_storage().data_ptr() for result in results}
        self._held = {}
        returned: dict[int, Tensor] = {}
        for place, vector in ours.items():
            if place in in_memories:
                self._held[place] = vector
            elif place in in_use:
                returned[place] = vector
            else:
                self._pool.give(vector)
        if returned:  # of the earlier results, the last ones may still be in use
            self._results = [*self._results[-1:], returned]

    def reclaim(self, in_use: Iterable[Tensor] = ()) -> None:
        """Reclaim earlier results, except for those that share memory with a tensor that is in use."""
        results, self._results = self._results, []
        if not results:
            return
        used_storages = {tensor.untyped_storage().data_ptr() for tensor in in_use}
        for of_round in results:
            used = {place: vector for place, vector in of_round.items() if place in used_storages}
            if used:
                self._results.append(used)
            for place, vector in of_round.items():
                if place not in used:
                    self._pool.give(vector)
