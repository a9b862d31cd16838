"""How far the workers' votes agree: counted by the servers of a process, in the rounds that an observer asks for."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Votes:
    """The votes of one round, at the servers of this process. Whole numbers, so that slices add up exactly."""

    alike: int
    """The magnitude of the sum of a coordinate's votes, added up over the coordinates."""
    possible: int
    """What `alike` would be if all votes for a coordinate were alike; above 0."""

    @property
    def agreement(self) -> float:
        """`alike` over `possible`: 1 if all votes for each coordinate are alike."""
        return self.alike / self.possible


class VoteCounter:
    """Adds up what the servers of one process count in a round."""

    def __init__(self) -> None:
        """Count in no round yet."""
        self.every: int | None = None
        """The number of rounds from one count to the next; None for no count."""
        self._alike = self._possible = 0

    def counts_in(self, round_: int) -> bool:
        """Return whether the votes of this round are to be counted."""
        return self.every is not None and round_ % self.every == 0

    def add(self, counted: tuple[int, int] | None) -> None:
        """Take up (alike, possible) of one server and exchange; None where nothing is voted on."""
        if counted is not None:
            self._alike += counted[0]
            self._possible += counted[1]

    def taken(self) -> Votes | None:
        """Return the votes since the last call; None if there were none."""
        alike, possible, self._alike, self._possible = self._alike, self._possible, 0, 0
        return Votes(alike=alike, possible=possible) if possible else None
