"""The result of one round, from any driver."""

from collections.abc import Mapping
from dataclasses import dataclass

from laconic.contract import Result


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What the workers of this process apply: vectors (d,), or sparse packets that stand for them."""

    aborted: bool
    """Whether the round had no effect: some rank met inf or NaN, or no worker was up."""
    results: Mapping[int, Result]
    """By the ranks of this process's workers. Empty if the round was aborted or this process only serves."""

    def of(self, rank: int) -> Result:
        """Return what worker `rank` applies. Raises KeyError if it has no result."""
        return self.results[rank]
