"""The bandwidths at which one step time is below another: searched on a ladder, then by bisection."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

Interval = tuple[float | None, float | None]  # bytes per second; None: the end of the search range

SLOWEST_BYTES_PER_S = 10e3 / 8
FASTEST_BYTES_PER_S = 10e12 / 8
_RUNGS_A_DECADE = 4
_CLOSE = 1.001  # ratio of bandwidths at which bisection ends
_MARGIN = 0.01  # measured times vary by as much between measurements


def ladder(n_a_decade: int = _RUNGS_A_DECADE) -> list[float]:
    """Return the bandwidths of the search range, in bytes per second, evenly on a logarithmic scale."""
    decades = math.log10(FASTEST_BYTES_PER_S / SLOWEST_BYTES_PER_S)
    n = round(decades * n_a_decade)
    return [SLOWEST_BYTES_PER_S * 10 ** (decades * step / n) for step in range(n + 1)]


def where_faster(one_s: Callable[[float], float], other_s: Callable[[float], float]) -> tuple[Interval, ...]:
    """Return the bandwidths at which one step time is below another by at least 1 %.

    Args:
        one_s: Returns a step time, in seconds, at a bandwidth in bytes per second.
        other_s: The same for the other.

    Returns:
        Intervals of bandwidth, in bytes per second, ascending.
    """

    def is_faster(bytes_per_s: float) -> bool:
        return one_s(bytes_per_s) < other_s(bytes_per_s) * (1 - _MARGIN)

    rungs = ladder()
    intervals: list[Interval] = []
    start: float | None = None
    inside = is_faster(rungs[0])
    for below, above in pairwise(rungs):
        if is_faster(above) == inside:
            continue
        crossing = _crossing(is_faster, below, above)
        if inside:
            intervals.append((start, crossing))
        start, inside = crossing, not inside
    if inside:
        intervals.append((start, None))
    return tuple(intervals)


def break_even(faster_within: Sequence[Interval]) -> float | None:
    """Return the bandwidth above which it is never faster; None if there is none."""
    return faster_within[-1][1] if faster_within else None


def _crossing(is_faster: Callable[[float], bool], below: float, above: float) -> float:
    low = is_faster(below)
    while above / below > _CLOSE:
        middle = math.sqrt(below * above)
        if is_faster(middle) == low:
            below = middle
        else:
            above = middle
    return math.sqrt(below * above)
