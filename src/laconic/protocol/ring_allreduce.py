"""The engine's all-reduce as the simulator and the meters know it: its order of addition and its bytes."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_MAX_SEGMENT_BYTES = 1 << 20
_MIN_BYTES_FOR_TWO = 1 << 22


def ring_parts(d: int, value_bytes: int) -> list[tuple[int, int]]:
    """The parts of a vector, (first, stop), that are summed side by side, each by a ring of its own.

    Two of a large one: while one part is under way, the other is gathered.
    """
    middle = d // 2
    return [(0, middle), (middle, d)] if d * value_bytes >= _MIN_BYTES_FOR_TWO else [(0, d)]


def ring_slices(d: int, n: int, value_bytes: int) -> list[tuple[int, int]]:
    """The slice of the vector that each rank of gloo's ring adds up: n pairs (first, stop), some may be empty.

    gloo cuts the vector into equal segments of at most 1 MiB, at least two a rank, equally many for each rank.
    """
    total = d * value_bytes
    segments_a_rank = ceil(max(ceil(total / _MAX_SEGMENT_BYTES), 2 * n) / n)
    segment = ceil(total / (segments_a_rank * n * value_bytes))  # in values
    bounds = [min(d, rank * segments_a_rank * segment) for rank in range(n + 1)]
    return [(bounds[rank], bounds[rank + 1]) for rank in range(n)]


def ring_sum(vectors: Sequence[Tensor]) -> Tensor:
    """The sum of n vectors (d,) in the order of gloo's rings: bit-equal to `Channel.all_reduce`.

    Slice k travels down the ring: it starts at rank k-1 and ends at rank k. Other engines add in other orders;
    with them the simulator agrees to rounding.
    """
    total = vectors[0].clone()
    arrays = [vector.detach().numpy() for vector in vectors]  # n * n slices: torch's take five times as long to make
    with np.errstate(over="ignore", invalid="ignore"):  # inf and NaN are looked for in the sum
        for start, stop in ring_parts(total.numel(), total.element_size()):
            _add_up([vector[start:stop] for vector in arrays], total.numpy()[start:stop])
    return total


def _add_up(vectors: Sequence[NDArray[Any]], total: NDArray[Any]) -> None:
    """One ring's sum of n vectors into `total`, which is a copy of the first."""
    n = len(vectors)
    if n == 1:
        return
    for k, (start, stop) in enumerate(ring_slices(total.size, n, total.itemsize)):
        part = total[start:stop]
        part[:] = vectors[(k - 1) % n][start:stop]
        for step in range(2, n + 1):
            part += vectors[(k - step) % n][start:stop]


def ring_bytes(d: int, n: int, value_bytes: int) -> int:
    """What each rank sends in one half of a ring all-reduce (and receives): (n-1)/n of the vector, on average."""
    return round(d * value_bytes * (n - 1) / n)
