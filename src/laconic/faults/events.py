"""Single faults that a plan names, and the numbers in a plan."""

import math
from dataclasses import dataclass

from laconic.hyperparameters import near_misses, plain_number

KINDS = ("lost", "late", "duplicated", "corrupted", "crashed")  # the kinds of events and counts


class PlanError(ValueError):
    """A fault plan is wrong, or does not go with a job."""

    def __init__(self, message: str, *at: str | int) -> None:
        """Keep the message, and where the fault is.

        Args:
            message: Begins with "faults: ", but for what `plan_file` adds.
            *at: A field; "event", its number from 0 and a field; or a table and a worker.
        """
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, kw_only=True)
class Event:
    """One fault of one worker in one round. Raises TypeError or ValueError, naming the field."""

    round: int
    worker: int
    kind: str
    """One of KINDS."""
    exchange: int | None = None
    """Number of the exchange in the round; None for all of them."""

    def __post_init__(self) -> None:
        for name in ("round", "worker", "exchange"):
            value = getattr(self, name)
            if value is not None or name != "exchange":
                object.__setattr__(self, name, integer_of(f"event: {name}", value, 0))
        if self.kind not in KINDS:
            raise ValueError(
                f"event: kind={self.kind!r} must be one of {', '.join(KINDS)}{near_misses(str(self.kind), list(KINDS))}"
            )
        if self.kind == "crashed" and self.exchange is not None:
            raise ValueError(
                f"event: exchange={self.exchange} does not go with kind='crashed': a worker that crashes misses "
                "complete rounds; leave exchange out"
            )


def factor_of(name: str, value: object) -> float:
    """Return a factor as a float. Raises TypeError or ValueError, naming it."""
    number: float = plain_number(value, f"faults: {name}")
    if not 0 < number < math.inf:
        raise ValueError(f"faults: {name}={number} must be above 0 and finite")
    return number


def integer_of(name: str, value: object, minimum: int) -> int:
    """Return a whole number as an int. Raises TypeError or ValueError, naming it."""
    number: int = plain_number(value, f"faults: {name}", int)
    if not minimum <= number < 2**63:
        raise ValueError(f"faults: {name}={number} must be at least {minimum} and below 2**63")
    return number
