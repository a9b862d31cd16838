"""Which elements are largest, and how many of them: floor(density d), the density read as the decimal it prints as."""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from laconic.compressors.blocks import block_lengths
from laconic.kernels.api import top_k


@functools.lru_cache(maxsize=1024)  # fractions are slow, and methods ask several times a round
def n_selected_for(density: float, d: int) -> int:
    """floor(density * d), exactly: 0.29 of 100 is 29, although the float 0.29 is a little below."""
    return math.floor(Fraction(str(density)) * d)


def n_selected_in(d: int, *, density: float, k: int | None = None) -> int:
    """How many of d elements to take: `k` where it is given, else floor(density d).

    Raises ValueError for none or for more than d, naming k or density, d and the way out.
    """
    if k is not None and not 1 <= k <= d:
        raise ValueError(f"top-k: k={k} must be in 1 .. d={d}, the vector's length; or leave k out and give density")
    n_selected = n_selected_for(density, d) if k is None else k
    if n_selected == 0:
        raise ValueError(f"top-k: density={density} of d={d} is no element; make it at least 1/{d}, or give k=1")
    return n_selected


def n_selected_by_block(
    d: int, *, density: float, k: int | None = None, blocks: str = "vector", layers: Sequence[int] = ()
) -> list[tuple[int, int]]:
    """(length, elements to take) of every block. `k` is taken in place of `density` where it is given.

    blocks: "vector", see `n_selected_in`, or "layer": at least one element of each parameter, no more than it has.
    """
    if blocks == "vector":
        return [(d, n_selected_in(d, density=density, k=k))]
    lengths = block_lengths(blocks, d, layers)
    return [(n, max(1, n_selected_for(density, n)) if k is None else min(k, n)) for n in lengths]


def chosen(
    vector: Tensor, *, density: float, k: int | None = None, blocks: str = "vector", layers: Sequence[int] = ()
) -> Tensor:
    """The positions of the largest magnitudes of `vector` (d,) in each of its blocks: int64, ascending.

    Ties go to the lower position. Raises ValueError as `n_selected_in` does.
    """
    found = []
    start = 0
    for length, n_selected in n_selected_by_block(vector.numel(), density=density, k=k, blocks=blocks, layers=layers):
        found.append(top_k(vector[start : start + length], n_selected) + start)
        start += length
    return torch.cat(found) if len(found) > 1 else found[0]
