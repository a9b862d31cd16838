"""Graphs of workers by name: which pairs exchange models, in which round."""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

Edge = tuple[int, int]  # two ranks, the lower one first


def cycle_length(text: str, n_workers: int) -> int:
    """Return the number of rounds after which W repeats: 1, or N - 1 for "shift-one"."""
    return max(1, n_workers - 1) if text == SHIFT_ONE else 1


def _ring(n: int) -> set[Edge]:
    return _circulant(n, [1])


def _exponential(n: int) -> set[Edge]:
    return _circulant(n, [2**k for k in range(n.bit_length()) if 2 ** (k + 1) <= n])


def _circulant(n: int, distances: Iterable[int]) -> set[Edge]:
    return {_sorted(i, (i + distance) % n) for distance in distances for i in range(n) if distance % n}


def _torus(n: int) -> set[Edge]:
    height = max(side for side in range(1, math.isqrt(n) + 1) if n % side == 0)
    width = n // height
    if height < 2:
        raise ValueError(
            f"torus: n_workers={n} has no two factors of at least 2; take {max(4, n + 1)} workers, or graph "
            "ring or exponential"
        )
    # Along a side of length 2, both neighbors are the same worker: one edge.
    across = {_sorted(i, i - i % width + (i + 1) % width) for i in range(n)}
    return across | {_sorted(i, (i + width) % n) for i in range(n)}


def _pairs(n: int, round_: int) -> set[Edge]:
    """Circle method: the last worker is fixed, the others form a circle that turns by one position per round."""
    if n % 2:
        raise ValueError(f"{SHIFT_ONE}: n_workers={n} must be even; take {n + 1} workers, or graph exponential")
    circle = n - 1
    others = {_sorted((round_ + k) % circle, (round_ - k) % circle) for k in range(1, n // 2)}
    return others | {(round_ % circle, n - 1)}


SHIFT_ONE = "shift-one"


_BUILDERS: Mapping[str, Callable[[int], set[Edge]]] = {
    "exponential": _exponential,  # all pairs whose distance on the circle is a power of two
    "full": lambda n: set(combinations(range(n), 2)),
    "ring": _ring,
    "star": lambda n: {(0, i) for i in range(1, n)},
    "torus": _torus,  # a grid, as square as possible, whose opposite sides are joined
}


GRAPHS = tuple(sorted([*_BUILDERS, SHIFT_ONE]))


def _sorted(one: int, other: int) -> Edge:
    return (one, other) if one < other else (other, one)
