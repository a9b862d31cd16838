"""Which parameters take part in a round: those that some rank has used since the last exchange.

The others get no update: a zero in their place would be one for a sign method, or for an optimizer with momentum.

Over processes, ranks agree on the parameters that any of them uses. Each remembers which ones it used itself at that
time. While that set stays, it sends nothing. A rank whose set has changed aborts the round (`Abort.SET_DIFFERS`); then
all ranks send their sets to each other, and repeat the round with the gradients that they still have.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence

from laconic.drivers.distributed.rounds import Processes
from laconic.drivers.gathered import Either
from laconic.drivers.saved_data import check_data
from laconic.errors import ContractError
from laconic.protocol.abort import Abort

Gather = Callable[[list[int]], Sequence[object]]


class UsedByRanks:
    """Gathers the parameters that each rank uses, over the connections of a driver that it does not hold."""

    def __init__(self) -> None:
        self._driver: weakref.ref[Processes] | None = None

    def gather_over(self, driver: Processes) -> None:
        """Gather over a driver's connections from now on."""
        self._driver = weakref.ref(driver)

    def __call__(self, indices: list[int]) -> Sequence[object]:
        """Return the indices that each rank gives, by rank. Collective."""
        driver = None if self._driver is None else self._driver()
        assert driver is not None, "what asks for them has it"
        n, what = len(driver.job.spec.shapes), f"for its list of used parameters, round {driver.rounds}"
        return driver.channel.gather(indices, what, [range(n)], max_bytes=2 + 12 * n)


class ActiveParameters:
    """The parameters that take part in this round, by index."""

    def __init__(self, sizes: Sequence[int], gather: Gather | None = None) -> None:
        """Start without any.

        Args:
            sizes: the parameters' numbers of elements.
            gather: returns what all ranks give to it, by rank. None if all workers are in this process: what they use
                is known without an agreement.
        """
        self._sizes = sizes
        self._gather = gather
        self._none = [False] * len(sizes)
        self.now = self._none
        """By parameter, whether it takes part in this round."""
        self.all_active = False
        """Whether all take part."""
        self.used = self._none
        """By parameter, whether a worker of this process has used it since the last exchange."""
        self.is_agreed = gather is None
        """Whether the ranks have agreed before, so that a round can tell whether they still do."""
        self.abort = Abort.NO
        """Whether this process has used other parameters than at the last agreement."""
        self._used_when_agreed: list[bool] | None = None  # None before the first agreement

    def note(self, has_gradient: Sequence[bool]) -> None:
        """Add the parameters that a worker of this process has just used."""
        if self._gather is None and self.used == has_gradient and self.now is self.used:
            return  # as another worker of this process in this round
        if True in self.used:
            has_gradient = [used or has for used, has in zip(self.used, has_gradient, strict=True)]
        self.used = list(has_gradient)
        if self._gather is None:
            self._set(self.used)
        elif self.is_agreed:
            self.abort = Abort.NO if self.used == self._used_when_agreed else Abort.SET_DIFFERS

    def _set(self, now: list[bool]) -> None:
        self.now, self.all_active = now, all(now)

    def select(self, used: Sequence[bool]) -> None:
        """Let exactly these parameters take part, such as those behind one gradient of an asynchronous worker."""
        self._set(list(used))

    def agree(self, *, rests: bool = False) -> None:
        """Let all parameters take part that any rank has used since the last exchange. Collective.

        Args:
            rests: whether this process brings nothing to the round. It will use what the others do.

        Raises:
            ContractError: for a list that a rank of this job cannot send.
        """
        assert self._gather is not None, "one process knows what its workers use"
        now = [False] * len(self.used)
        for rank, indices in enumerate(self._gather([place for place, used in enumerate(self.used) if used])):
            if not isinstance(indices, list) or not all(type(i) is int and 0 <= i < len(now) for i in indices):
                raise ContractError(
                    f"rank {rank} uses the parameters {indices!r:.80}, where there are {len(now)}; do all ranks train "
                    "the same model?"
                )
            for place in indices:
                now[place] = True
        self._used_when_agreed = now if rests else self.used
        self.is_agreed, self.abort = True, Abort.NO
        self._set(now)

    def end_round(self) -> None:
        """Begin to note what is used until the next exchange."""
        self.used = self._none

    def inactive(self) -> Sequence[tuple[int, int]]:
        """Return the slices (offset, stop) of the full vector that take no part in this round."""
        slices, offset = [], 0
        for size, active in zip(self._sizes, self.now, strict=True):
            if not active:
                slices.append((offset, offset + size))
            offset += size
        return slices

    def saved(self) -> dict[str, list[bool] | None]:
        """Return the state between two rounds, as data that JSON can hold."""
        return {"now": self.now, "used": self.used, "used_when_agreed": self._used_when_agreed}

    def check(self, state: Mapping[str, object]) -> None:
        """Raise ValueError unless saved sets are of this model's parameters."""
        each = (bool,) * len(self._sizes)
        check_data(
            "the active parameters", state, {"now": each, "used": each, "used_when_agreed": Either(type(None), each)}
        )

    def unsettled(self) -> dict[str, list[bool] | None]:
        """Return the state of ranks that have yet to agree."""
        none = [False] * len(self._sizes)
        return {"now": none, "used": none, "used_when_agreed": None}

    def restore(self, state: Mapping[str, list[bool] | None]) -> None:
        """Restore what `saved` has returned."""
        self._set(list(state["now"] or ()))
        self.used = list(state["used"] or ())
        agreed = state["used_when_agreed"]
        self._used_when_agreed = None if agreed is None else list(agreed)
        self.is_agreed = self._gather is None or agreed is not None
        differs = self._gather is not None and agreed is not None and self.used != agreed
        self.abort = Abort.SET_DIFFERS if differs else Abort.NO
