"""Bounded staleness: which worker may take the model, and which gradient may be applied, so that none is too old.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, section 4.1, asks for t - D(t) <= tau and
leaves open how a server sees to it. Here a worker's model is outstanding from when it may take it until its gradient
is applied. Sort the outstanding ones by the version that they started from, their base, with rank r = 0, 1, ...: if

    version + r <= base + tau  for all of them,

they can all be applied in that order and none is older than tau. A worker gets the model, and a gradient is applied,
only where that stays so. The gradient of the oldest can always be applied, so that nobody waits for ever.

Knows no tensors and no time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Late = Literal["hold", "drop"]


@dataclass(frozen=True)
class UpdateOutcome:
    """A gradient that waits for nothing any more. staleness: updates since its model was taken; void: inf or NaN."""

    worker: int
    staleness: int
    outcome: Literal["applied", "dropped", "aborted"] = "applied"
    waited: bool = False  # for an older one


class StalenessBound:
    """The outstanding models of one server, by worker: each worker has at most one.

    A worker asks, is admitted, takes the model, and arrives with its gradient.
    """

    def __init__(self, max_staleness: int | None = None, late: Late = "hold") -> None:
        """max_staleness: tau; None for no bound. late: "hold" lets workers and gradients wait, "drop" discards what is
        older than tau.

        Raises ValueError for a negative bound.
        """
        if max_staleness is not None and max_staleness < 0:
            raise ValueError(f"StalenessBound: max_staleness={max_staleness} must be at least 0, or None for no bound")
        self.max_staleness = max_staleness
        self.late: Late = late
        self.version = 0  # how many gradients were applied
        self._bases: dict[int, int | None] = {}  # of the outstanding models; None: admitted, not yet taken
        self._requesting: list[int] = []  # in the order of asking
        self._held: list[int] = []  # outstanding workers whose gradient is here, in the order of arrival

    @property
    def may_wait(self) -> bool:
        """Whether somebody may have to wait at all."""
        return self.late == "hold" and self.max_staleness is not None

    @property
    def held(self) -> tuple[int, ...]:
        """The workers whose gradients wait at the server."""
        return tuple(self._held)

    @property
    def requesting(self) -> tuple[int, ...]:
        """The workers that wait for the model."""
        return tuple(self._requesting)

    @property
    def outstanding(self) -> tuple[int, ...]:
        """The workers that may compute, or whose gradients are held."""
        return tuple(self._bases)

    def request(self, worker: int) -> None:
        """The worker wants the model."""
        assert worker not in {*self._bases, *self._requesting}, f"worker {worker} asks twice"
        self._requesting.append(worker)

    def admit(self) -> list[int]:
        """Who may take the model now, of those that asked, first come first served."""
        admitted = []
        while self._requesting and self._feasible([*self._bases.values(), None], self.version):
            worker = self._requesting.pop(0)
            self._bases[worker] = None
            admitted.append(worker)
        return admitted

    def take(self, worker: int) -> None:
        """The model of this version is the one that the worker gets."""
        assert worker in self._bases, f"worker {worker} takes what it was not admitted to"
        self._bases[worker] = self.version

    def arrive(self, worker: int, *, aborted: bool = False) -> list[UpdateOutcome]:
        """The worker's gradient is here: what is settled by that, in this order; others' held ones may be among it.

        void: it is not to be applied, whatever its age.
        """
        base = self._bases[worker]
        assert base is not None, f"worker {worker} arrives without a model"
        staleness = self.version - base
        outcomes = []
        if aborted or (self.late == "drop" and self.max_staleness is not None and staleness > self.max_staleness):
            del self._bases[worker]
            outcomes.append(UpdateOutcome(worker, staleness, "aborted" if aborted else "dropped"))
        else:
            self._held.append(worker)
        while (ready := next((one for one in self._held if self._may_apply(one)), None)) is not None:
            self._held.remove(ready)
            outcomes.append(UpdateOutcome(ready, self._apply(ready), waited=ready != worker))
        return outcomes

    def _apply(self, worker: int) -> int:
        base = self._bases.pop(worker)
        assert base is not None
        self.version += 1
        return self.version - 1 - base

    def _may_apply(self, worker: int) -> bool:
        others = [base for other, base in self._bases.items() if other != worker]
        return self._feasible(others, self.version + 1)

    def _feasible(self, bases: Iterable[int | None], version: int) -> bool:
        """Whether all can be applied in the order of their bases; a model not yet taken will be of this version."""
        if not self.may_wait:
            return True
        assert self.max_staleness is not None
        ages = sorted((version - base if base is not None else 0 for base in bases), reverse=True)
        return all(age + rank <= self.max_staleness for rank, age in enumerate(ages))

    @property
    def bases(self) -> dict[int, int]:
        """The versions that the outstanding models are of, by worker; none may be about to be taken."""
        bases = {worker: base for worker, base in self._bases.items() if base is not None}
        assert len(bases) == len(self._bases), "a model is about to be taken"
        return bases

    def restore(self, version: int, bases: Mapping[int, int]) -> None:
        """Go on from a version and bases at which nobody waited."""
        self.version, self._bases = version, dict(bases)
        self._requesting, self._held = [], []
