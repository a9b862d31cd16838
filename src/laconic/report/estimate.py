"""A mean over seeds and how far they lie apart, once for tables and pages."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds."""

    mean: float
    deviation: float | None
    """Sample standard deviation; None for a single seed."""
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate | None":
        """Return the mean and the deviation of values; None if there are none."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return cls(mean=statistics.fmean(values), deviation=deviation, seeds=len(values))
