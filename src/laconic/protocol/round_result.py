"""The result of one round, from any driver."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor

from laconic.contract import InParts, Leaves, Result, Scratch
from laconic.protocol.abort import Abort
from laconic.wire import Sparse


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What the workers of this process apply: vectors (d,), or sparse packets that stand for them."""

    aborted: Abort
    """Whether the round had no effect, and why."""
    results: Mapping[int, Result]
    """By the ranks of this process's workers. Empty if the round was aborted or this process only serves."""

    supports: Mapping[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """By rank, where they are known: indices (k,) outside which a dense result is zero, and its elements there."""

    def of(self, rank: int) -> Result:
        """Return what worker `rank` applies. Raises KeyError if it has no result."""
        return self.results[rank]

    def in_vectors(self) -> "RoundResult":
        """Return the same, with a vector (d,) in place of the packets of an answer."""
        made = {rank: found.dense() for rank, found in self.results.items() if isinstance(found, InParts)}
        return replace(self, results={**self.results, **made}) if made else self


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """Of which packets a worker's result may be left in parts for who applies it."""

    kind: Leaves = "nothing"
    lenders: Sequence[Scratch] = ()
    """Of the servers on the worker's rank, in whose vectors its result may be."""


def by_rank(results: Sequence[Result], n_workers: int) -> dict[int, Result]:
    """Return the results by rank; a single one is that of all workers."""
    return dict.fromkeys(range(n_workers), results[0]) if len(results) == 1 else dict(enumerate(results))


def same_result(one: Result, other: Result) -> bool:
    """Return whether two workers' results have the same values. In most cases they are one tensor."""
    if isinstance(one, Sparse) and isinstance(other, Sparse):
        return _equal(one.indices, other.indices) and _equal(one.values.dense(), other.values.dense())
    return isinstance(one, Tensor) and isinstance(other, Tensor) and _equal(one, other)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one is other or np.array_equal(one.cpu().numpy(), other.cpu().numpy())
