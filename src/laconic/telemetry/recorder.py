"""One event a round, for whoever observes a job: its phases, its traffic, and whether it was aborted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from laconic.telemetry.meter import Count, CountsSince, Meter, Totals, totals_by_exchange
from laconic.telemetry.phases import Seconds
from laconic.telemetry.votes import VoteCounter, Votes


@dataclass(frozen=True, kw_only=True)
class RoundStats:
    """One round of the workers of this process."""

    round: int
    aborted: bool
    """Whether it had no effect."""
    phases: Sequence[tuple[str, float, float]]
    """Name, start and end of each phase since the last round, in seconds of `time.perf_counter`. Empty if simulated."""
    up: Mapping[str, Count]
    """Upload of this round by exchange, added up over the workers."""
    down: Mapping[str, Count]
    """Download."""
    residual_norm: float | None = None
    """Norm of all workers' residuals after the round, if it was asked for."""
    votes: Votes | None = None
    """How far the workers' votes agreed, if it was asked for and this process serves."""
    inside: Count = field(default_factory=Count)
    """What this rank has sent to others of its node; nothing where each rank is a worker."""

    def values(self) -> dict[str, float]:
        """Return the round's numbers by the names that a log shows them under; phases in seconds, added up by name."""
        up, down = sum(self.up.values(), Count()), sum(self.down.values(), Count())
        values: dict[str, float] = {
            "round/up_wire_bytes": up.wire_bytes, "round/down_wire_bytes": down.wire_bytes,
            "round/up_payload_bits": up.payload_bits, "round/up_paper_bits": up.paper_bits,
            "round/skips_up": up.skips, "round/skips_down": down.skips, "round/aborted": int(self.aborted),
        }  # fmt: skip
        for name, start_s, end_s in self.phases:
            values[f"round/{name}_s"] = values.get(f"round/{name}_s", 0.0) + end_s - start_s
        if self.residual_norm is not None:
            values["round/residual_norm"] = self.residual_norm
        if self.inside.messages:
            values["round/inside_wire_bytes"] = self.inside.wire_bytes
        if self.votes is not None:
            values["round/vote_agreement"] = self.votes.agreement
        return values


Observer = Callable[[RoundStats], object]
_NOTHING = Count()


class Voting(Protocol):
    """A server that counts votes while it has a counter of votes."""

    vote_counter: VoteCounter | None


class Recorder:
    """Hands each round's stats to observers. It does nothing without any."""

    def __init__(
        self, meters: Sequence[Meter], seconds: Seconds | None = None,
        residual_norm: Callable[[], float] | None = None, voting: Sequence[Voting] = (),
        inside: Callable[[], Count] | None = None,
    ) -> None:  # fmt: skip
        """Record what the workers' `meters` count and this rank's `seconds`, and the votes at the servers `voting`.

        `inside` returns what this rank has sent inside its node so far; None where each rank is a worker.
        """
        self.observers: list[Observer] = []
        self._meters, self._seconds, self._residual_norm = meters, seconds, residual_norm
        self._norm_every: int | None = None
        self._voting, self._vote_counter = voting, VoteCounter()
        self._inside, self._inside_before = inside, _NOTHING if inside is None else inside()
        self._before = self._counts()

    def observe(
        self, observer: Observer, *, residual_norm: bool = False, vote_agreement: bool = False, every: int = 1
    ) -> None:
        """Call the observer after each round from now on.

        Args:
            observer: Gets the stats of each round.
            residual_norm: Whether it wants the norm of the residuals, which takes a pass over them.
            vote_agreement: Whether it wants to know how far votes agree: two passes over each packet of votes.
            every: The number of rounds from one of these to the next. The observer that wants the most has its way.
        """
        if not self.observers:
            self._before = self._counts()
            self._inside_before = _NOTHING if self._inside is None else self._inside()
            if self._seconds is not None:
                self._seconds.phases = []
        self.observers.append(observer)
        if residual_norm:
            self._norm_every = min(every, self._norm_every or every)
        if vote_agreement:
            self._vote_counter.every = min(every, self._vote_counter.every or every)
            for server in self._voting:
                server.vote_counter = self._vote_counter

    def take_over(self, other: "Recorder") -> None:
        """Tell the observers of another recorder from now on, with what they asked for."""
        self.observers, self._norm_every = other.observers, other._norm_every
        self._vote_counter.every = other._vote_counter.every
        for server in self._voting:
            server.vote_counter = self._vote_counter if self._vote_counter.every else None
        if self.observers and self._seconds is not None:
            self._seconds.phases = []

    def restart(self) -> None:
        """Begin to count a round now, because the meters were restored."""
        self._before = self._counts()

    def round_ended(self, round_: int, *, aborted: bool) -> None:
        """Tell the observers of a round."""
        phases: list[tuple[str, float, float]] = []
        if self._seconds is not None:
            phases, self._seconds.phases = self._seconds.phases or [], []
        before, self._before = self._before, self._counts()
        up, down = map(CountsSince, before, self._before)
        inside = _NOTHING
        if self._inside is not None:
            before_it, self._inside_before = self._inside_before, self._inside()
            inside = self._inside_before - before_it
        wants_norm = self._norm_every is not None and round_ % self._norm_every == 0
        norm = self._residual_norm() if wants_norm and self._residual_norm is not None else None
        votes = self._vote_counter.taken()
        stats = RoundStats(
            round=round_, aborted=aborted, phases=phases, up=up, down=down, residual_norm=norm,
            votes=None if aborted else votes, inside=inside,
        )  # fmt: skip
        for observer in self.observers:
            observer(stats)

    def _counts(self) -> tuple[dict[str, Totals], dict[str, Totals]]:
        return totals_by_exchange(self._meters, "up"), totals_by_exchange(self._meters, "down")
