"""The choice of the largest elements: floor(density d) of them, with the density as the decimal that it prints as."""

import functools
import math
from fractions import Fraction

import torch
from torch import Tensor

from laconic.compressors.compressor import block_lengths
from laconic.contract import ModelSpec
from laconic.kernels.api import top_k_by_block


@functools.lru_cache(maxsize=1024)  # fractions are slow, and methods ask several times a round
def n_selected_for(density: float, d: int, rounding: str = "floor") -> int:
    """Return density * d, rounded exactly: down to 29 for 0.29 of 100, although the float 0.29 is a little below.

    Args:
        density: Share of the elements.
        d: Number of elements.
        rounding: "floor" or "ceil".
    """
    exact = Fraction(str(density)) * d
    return math.ceil(exact) if rounding == "ceil" else math.floor(exact)


def n_selected_in(d: int, *, density: float, k: int | None = None, rounding: str = "floor") -> int:
    """Return how many of d elements to take.

    Args:
        d: Number of elements.
        density: Share of the elements, in (0, 1].
        k: Number of elements, in place of `density`.
        rounding: How density * d is rounded, "floor" or "ceil".

    Raises:
        ValueError: The number is 0 or above d.
    """
    if k is not None and not 1 <= k <= d:
        raise ValueError(f"top-k: k={k} must be in 1 .. d={d}, the vector's length; or leave k out and give density")
    n_selected = n_selected_for(density, d, rounding) if k is None else k
    if n_selected == 0:
        raise ValueError(f"top-k: density={density} of d={d} is no element; make it at least 1/{d}, or give k=1")
    return n_selected


def n_selected_by_block(
    d: int, *, density: float, k: int | None = None, blocks: str = "vector", spec: ModelSpec | None = None
) -> list[tuple[int, int]]:
    """Return the length of every block, and how many elements to take of it.

    Args:
        d: Number of elements.
        density: Share of the elements, in (0, 1].
        k: Number of elements of each block, in place of `density`.
        blocks: "vector" for one block; "layer" for one a layer, or a number of elements in each block, of which at
            least one is taken, and at most all.
        spec: The vector's tensors, each of which is a layer; without it, the vector is one.

    Returns:
        (length, number of elements) of each block.

    Raises:
        ValueError: As `n_selected_in` does, for "vector".
    """
    if blocks == "vector":
        return [(d, n_selected_in(d, density=density, k=k))]
    return _of_blocks(block_lengths(blocks, d, spec), density, k)


@functools.lru_cache(maxsize=64)  # asked for several times a round, too
def _of_blocks(lengths: tuple[int, ...], density: float, k: int | None) -> list[tuple[int, int]]:
    return [(n, max(1, n_selected_for(density, n)) if k is None else min(k, n)) for n in lengths]


def chosen(
    vector: Tensor, *, density: float, k: int | None = None, blocks: str = "vector", spec: ModelSpec | None = None
) -> Tensor:
    """Return the indices of the largest magnitudes in each block; of equal ones, the lower index comes first.

    Args:
        vector: (d,) float32 or float64.
        density: Share of the elements, in (0, 1].
        k: Number of elements of each block, in place of `density`.
        blocks: As for `n_selected_by_block`.
        spec: The vector's tensors, each of which is a layer; without it, the vector is one.

    Returns:
        (n,) int64, ascending.

    Raises:
        ValueError: As `n_selected_in` does, for "vector".
    """
    by_block = n_selected_by_block(vector.numel(), density=density, k=k, blocks=blocks, spec=spec)
    found = []
    start = 0
    if blocks not in ("vector", "layer") and len(by_block) > 2:  # all but the last are alike
        length, n_selected = by_block[0]
        start = length * (len(by_block) - 1)
        found.append(_chosen_in_rows(vector[:start].view(-1, length), n_selected))
        by_block = by_block[-1:]
    if not found:
        return top_k_by_block(vector, by_block)
    found.append(top_k_by_block(vector[start:], by_block) + start)
    return torch.cat(found)


def _chosen_in_rows(rows: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest magnitudes in each row, as `top_k` chooses them.

    Args:
        rows: (n, size) float32 or float64.
        k: Number of elements of each row, 1 .. size.

    Returns:
        (n k,) int64, ascending, counted over all rows.
    """
    integer = torch.int32 if rows.dtype == torch.float32 else torch.int64
    magnitudes = rows.view(integer) & torch.iinfo(integer).max  # in the order of the numbers, NaN above infinity
    threshold = magnitudes.topk(k, sorted=False).values.amin(1, keepdim=True)
    taken = magnitudes > threshold
    ties = magnitudes == threshold
    taken |= ties & (ties.cumsum(1, dtype=torch.int32) <= k - taken.sum(1, keepdim=True))
    return taken.view(-1).nonzero().flatten()
