"""A model of the engine's all-reduce for the simulator and the meters: its order of addition and its bytes."""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil

import torch
from torch import Tensor

from laconic.kernels.api import add_up_rings

_MAX_SEGMENT_BYTES = 1 << 20
_MIN_BYTES_FOR_TWO = 1 << 22


def ring_parts(d: int, value_bytes: int) -> list[tuple[int, int]]:
    """Return the parts (offset, stop) of a vector that are summed at the same time, each by its own ring.

    A large vector has two: while one part is being sent, the other is gathered.
    """
    middle = d // 2
    return [(0, middle), (middle, d)] if d * value_bytes >= _MIN_BYTES_FOR_TWO else [(0, d)]


def ring_slices(d: int, n: int, value_bytes: int) -> list[tuple[int, int]]:
    """Return the slice that each rank of gloo's ring adds up: n pairs (offset, stop), some may be empty.

    gloo splits the vector into equal segments of at most 1 MiB: at least two a rank, and equally many for each rank.
    """
    total = d * value_bytes
    segments_a_rank = ceil(max(ceil(total / _MAX_SEGMENT_BYTES), 2 * n) / n)
    segment = ceil(total / (segments_a_rank * n * value_bytes))  # in values
    bounds = [min(d, rank * segments_a_rank * segment) for rank in range(n + 1)]
    return [(bounds[rank], bounds[rank + 1]) for rank in range(n)]


def ring_sum(vectors: Sequence[Tensor]) -> Tensor:
    """Return the sum of n vectors (d,), added in the order of gloo's rings: bit-equal to `Channel.all_reduce`.

    Slice k starts at rank k-1, passes through the ring in descending order, and ends at rank k. Other engines add in
    other orders; the simulator agrees with them up to rounding.
    """
    total = torch.empty_like(vectors[0])
    for start, stop in ring_parts(total.numel(), total.element_size()):
        part = total[start:stop]
        bounds = ring_slices(stop - start, len(vectors), total.element_size())
        add_up_rings([vector[start:stop] for vector in vectors], bounds, part)
    return total


@lru_cache(maxsize=64)
def ring_bytes(d: int, n: int, value_bytes: int) -> int:
    """Return the bytes that each rank sends (and receives) in one phase of a ring all-reduce.

    On average that is (n-1)/n of the vector. The phases are reduce-scatter and all-gather.
    """
    return round(d * value_bytes * (n - 1) / n)
