"""Bounded staleness: which worker may take the model, and which gradient may be applied, so that none is too old.

Liu and Zhang: Distributed Learning Systems with First-Order Methods, 2020, section 4.1, requires t - D(t) <= tau and
leaves open how a server ensures it. Here a worker's model is outstanding from its admission until its gradient is
applied. Sort the outstanding models by the version that they are of, their base, with index r = 0, 1, ...: if

    version + r <= base + tau  for all of them,

their gradients can be applied in that order and none is older than tau. A worker is admitted, or a gradient applied,
only if this condition still holds afterwards. The oldest gradient can always be applied, so no worker waits forever.

This file uses neither tensors nor time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from laconic.errors import ContractError

Late = Literal["hold", "drop"]


@dataclass(frozen=True)
class UpdateOutcome:
    """What became of one gradient."""

    worker: int
    staleness: int
    """Number of updates since the worker took its model."""
    outcome: Literal["applied", "dropped", "aborted"] = "applied"
    """Applied, dropped as too old, or aborted because it holds inf or NaN."""
    waited: bool = False
    """Whether it had to wait for an older gradient."""


class StalenessBound:
    """The outstanding models of one server, at most one for each worker.

    A worker requests admission, is admitted, takes the model, and arrives with its gradient.
    """

    def __init__(self, max_staleness: int | None = None, late: Late = "hold") -> None:
        """Make a bound without outstanding models.

        Args:
            max_staleness: tau; None for no bound.
            late: "hold" makes workers and gradients wait, "drop" drops gradients that are older than tau.

        Raises:
            ValueError: for a negative bound.
        """
        if max_staleness is not None and max_staleness < 0:
            raise ValueError(f"StalenessBound: max_staleness={max_staleness} must be at least 0, or None for no bound")
        self.max_staleness = max_staleness
        self.late: Late = late
        self.version = 0  # number of gradients applied
        self._bases: dict[int, int | None] = {}  # versions of the outstanding models; None: not taken yet
        self._requesting: list[int] = []  # in the order of their requests
        self._held: list[int] = []  # workers whose gradient waits, in the order of arrival

    @property
    def may_wait(self) -> bool:
        """Whether a worker or a gradient can have to wait."""
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
        """Request the model for a worker. Raises ContractError if it has requested or has one already."""
        if worker in self._bases or worker in self._requesting:
            raise ContractError(
                f"worker {worker} requests the model, and has requested it already; it must send a gradient first"
            )
        self._requesting.append(worker)

    def admit(self) -> list[int]:
        """Admit the workers that may take the model now, first come first served, and return them."""
        admitted = []
        while self._requesting and self._feasible([*self._bases.values(), None], self.version):
            worker = self._requesting.pop(0)
            self._bases[worker] = None
            admitted.append(worker)
        return admitted

    def take(self, worker: int) -> None:
        """Record that the worker takes the model of the current version."""
        assert worker in self._bases, f"worker {worker} takes the model without admission"
        self._bases[worker] = self.version

    def arrive(self, worker: int, *, aborted: bool = False) -> list[UpdateOutcome]:
        """Record that the worker's gradient has arrived.

        Args:
            worker: rank of the worker.
            aborted: the gradient must not be applied, whatever its age.

        Returns:
            The outcomes that this arrival decides, in order of application; held gradients of others may be included.

        Raises:
            ContractError: if the worker has no model to compute a gradient at.
        """
        base = self._bases.get(worker)
        if base is None or worker in self._held:
            raise ContractError(f"worker {worker} sent a gradient without a model; it must request one before each")
        staleness = self.version - base
        outcomes = []
        if aborted or (self.late == "drop" and self.max_staleness is not None and staleness > self.max_staleness):
            del self._bases[worker]
            outcomes.append(UpdateOutcome(worker, staleness, "aborted" if aborted else "dropped"))
        else:
            self._held.append(worker)
        return outcomes + self._apply_held(worker)

    def forget(self, worker: int) -> list[UpdateOutcome]:
        """Forget a worker that takes no further steps. Returns the outcomes that this decides, as `arrive` does."""
        self._bases.pop(worker, None)
        for waiting in (self._requesting, self._held):
            if worker in waiting:
                waiting.remove(worker)
        return self._apply_held(worker)

    def _apply_held(self, worker: int) -> list[UpdateOutcome]:
        """Apply the gradients that may be applied, now that something has come from `worker`."""
        outcomes = []
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
        """Whether all can be applied in the order of their bases. A model not taken yet counts as of this version."""
        if not self.may_wait:
            return True
        assert self.max_staleness is not None
        ages = sorted((version - base if base is not None else 0 for base in bases), reverse=True)
        return all(age + rank <= self.max_staleness for rank, age in enumerate(ages))

    def saved(self) -> dict[str, Any]:
        """Return the state, as data that JSON can hold."""
        return {
            "version": self.version, "bases": {str(worker): base for worker, base in self._bases.items()},
            "requesting": list(self._requesting), "held": list(self._held),
        }  # fmt: skip

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Continue from what `saved` returned."""
        self.version = saved["version"]
        self._bases = {int(worker): base for worker, base in saved["bases"].items()}
        self._requesting, self._held = list(saved["requesting"]), list(saved["held"])
