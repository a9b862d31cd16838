"""What a measured relation says about a printed one: the five kinds of rules and their three verdicts.

A rule compares figures of runs that share seeds, paired by seed. "Does not hold" is a result like the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from enum import Enum
from statistics import mean

NEARLY_NO_LOSS = 0.3
"""By how much a claim of no loss may be missed within the band: with three seeds, less is luck."""
NEARLY_INSIDE = 0.1
"""The share of an end by which an interval may be missed within the band."""
EXPONENT_HOLDS, EXPONENT_BAND = 0.15, 0.25
_DIGITS = 9  # what differs less than that differs by the order of additions only


class Verdict(Enum):
    """What a rule says; in order, so that the last one of several is that of all."""

    HOLDS = "holds"
    WITHIN_BAND = "within band"
    DOES_NOT_HOLD = "does not hold"


def verdict_of_all(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of some verdicts, of which there is at least one."""
    return max(verdicts, key=list(Verdict).index)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A figure of one row by seed."""

    by_seed: Mapping[int, float]
    is_bound: bool = False
    """Whether a run has missed the target, so that its whole traffic stands for it: a lower bound."""

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return mean(self.by_seed.values())

    @property
    def lowest(self) -> float:
        """The figure of the lowest seed."""
        return min(self.by_seed.values())

    @property
    def highest(self) -> float:
        """The figure of the highest seed."""
        return max(self.by_seed.values())

    def less(self, other: "Measured") -> "Measured":
        """Return the differences, paired by seed. Raises ValueError if no seed is in both."""
        return self._paired(other, {seed: round(own - other.by_seed[seed], _DIGITS) for seed, own in self._both(other)})

    def over(self, other: "Measured") -> "Measured":
        """Return the ratios, paired by seed. Raises ValueError if no seed is in both."""
        return self._paired(other, {seed: own / other.by_seed[seed] for seed, own in self._both(other)})

    def _both(self, other: "Measured") -> list[tuple[int, float]]:
        both = [(seed, own) for seed, own in self.by_seed.items() if seed in other.by_seed]
        if not both:
            raise ValueError(f"no seed is in both: {sorted(self.by_seed)} and {sorted(other.by_seed)}")
        return both

    def _paired(self, other: "Measured", by_seed: Mapping[int, float]) -> "Measured":
        return Measured(by_seed=by_seed, is_bound=self.is_bound or other.is_bound)


def order(difference: Measured, *, band: float = 0.0, every_seed: bool = False) -> Verdict:
    """Judge "A is more than B" by A less B.

    Args:
        difference: A less B, by seed.
        band: What may be luck, in the unit of the figures.
        every_seed: Whether the sign must be that of every seed, where two in three are enough otherwise.
    """
    signs = sum(one > 0 for one in difference.by_seed.values())
    enough = len(difference.by_seed) if every_seed else -(-2 * len(difference.by_seed) // 3)
    if difference.mean > band and signs >= enough:
        return _capped(Verdict.HOLDS, difference)
    return Verdict.WITHIN_BAND if abs(difference.mean) <= band else Verdict.DOES_NOT_HOLD


def no_loss(difference: Measured, *, margin: float) -> Verdict:
    """Judge "A is at least B less a margin" by A less B."""
    missed_by = round(-margin - difference.mean, _DIGITS)
    if missed_by <= 0:
        return _capped(Verdict.HOLDS, difference)
    return Verdict.WITHIN_BAND if missed_by < NEARLY_NO_LOSS else Verdict.DOES_NOT_HOLD


def interval(
    figure: Measured, *, low: float | None = None, high: float | None = None, nearly: float = NEARLY_INSIDE
) -> Verdict:
    """Judge whether the mean of a figure is in [low, high]; None for no end.

    Args:
        figure: The figure, by seed.
        low: The lower end.
        high: The upper end.
        nearly: The share of an end by which it may be missed within the band.
    """
    value = figure.mean
    if (low is None or value >= low) and (high is None or value <= high):
        return _capped(Verdict.HOLDS, figure)
    end = low if low is not None and value < low else high
    assert end is not None
    return Verdict.WITHIN_BAND if abs(value - end) < nearly * abs(end) else Verdict.DOES_NOT_HOLD


def exponent(fit: Measured, *, expected: float, holds: float = EXPONENT_HOLDS, band: float = EXPONENT_BAND) -> Verdict:
    """Judge a fitted exponent by its distance from the expected one."""
    distance = round(abs(fit.mean - expected), _DIGITS)
    if distance <= holds:
        return Verdict.HOLDS
    return Verdict.WITHIN_BAND if distance <= band else Verdict.DOES_NOT_HOLD


def computed(value: float, printed: str, *, truncated: bool = False) -> Verdict:
    """Judge a computed figure: equal to the printed one after rounding to its digits, or after cutting them off."""
    return (
        Verdict.HOLDS if as_printed(value, printed, truncated=truncated) == Decimal(printed) else Verdict.DOES_NOT_HOLD
    )


def as_printed(value: float, printed: str, *, truncated: bool = False) -> Decimal:
    """Return the value with the digits of the printed figure."""
    unit = Decimal((0, (1,), int(Decimal(printed).as_tuple().exponent)))
    return Decimal(repr(value)).quantize(unit, rounding=ROUND_DOWN if truncated else ROUND_HALF_UP)


def _capped(verdict: Verdict, figure: Measured) -> Verdict:
    """Return the verdict, or within band for a figure that is only a lower bound."""
    return Verdict.WITHIN_BAND if figure.is_bound else verdict
