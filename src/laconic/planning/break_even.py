"""At which bandwidths one step time is below another: looked for on a ladder, then narrowed down."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

Interval = tuple[float | None, float | None]  # bytes per second; None: to the end of what was looked at

SLOWEST_BYTES_PER_S = 10e3 / 8
FASTEST_BYTES_PER_S = 10e12 / 8
_RUNGS_A_DECADE = 4
_CLOSE = 1.001  # two bandwidths this near are one
_MARGIN = 0.01  # measured times differ by as much from one measurement to the next


def ladder(n_a_decade: int = _RUNGS_A_DECADE) -> list[float]:
    """Bandwidths from the slowest to the fastest that are looked at, evenly on a logarithmic scale."""
    decades = math.log10(FASTEST_BYTES_PER_S / SLOWEST_BYTES_PER_S)
    n = round(decades * n_a_decade)
    return [SLOWEST_BYTES_PER_S * 10 ** (decades * step / n) for step in range(n + 1)]


def where_faster(one_s: Callable[[float], float], other_s: Callable[[float], float]) -> tuple[Interval, ...]:
    """Where `one_s` is below `other_s` by a hundredth or more, as intervals of bandwidth, ascending.

    Both are asked at bytes per second.
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
    """The bandwidth above which it is never faster again; None where there is none."""
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
