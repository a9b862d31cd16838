"""The choice of the largest elements: floor(density d) of them, with the density as the decimal that it prints as."""

import functools
import math
from fractions import Fraction

from torch import Tensor

from laconic.compressors.compressor import block_lengths
from laconic.contract import ModelSpec
from laconic.kernels.api import correct, correct_top_k_by_chunk, top_k_by_block, top_k_by_chunk


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
    chunks = chunks_of(vector.numel(), density=density, k=k, blocks=blocks, spec=spec)
    if chunks is not None:
        return top_k_by_chunk(vector, *chunks)
    return top_k_by_block(vector, n_selected_by_block(vector.numel(), density=density, k=k, blocks=blocks, spec=spec))


def chosen_with_residual(
    vector: Tensor, residual: Tensor, *, divisor: int, decay: float,
    density: float, k: int | None = None, blocks: str = "vector", spec: ModelSpec | None = None,
) -> Tensor:  # fmt: skip
    """Write vector / divisor + decay residual over the vector, and return its `chosen`.

    Args:
        vector: (d,) float32 or float64, contiguous, overwritten.
        residual: (d,) of the same type.
        divisor: Divisor of the vector.
        decay: Factor of the residual.
        density: As for `chosen`, as all below, with the same result and exceptions.
        k: Number of elements of each block.
        blocks: What is a block.
        spec: The vector's tensors.
    """
    chunks = chunks_of(vector.numel(), density=density, k=k, blocks=blocks, spec=spec)
    if chunks is not None:  # in one pass
        return correct_top_k_by_chunk(vector, residual, *chunks, divisor=divisor, decay=decay)
    correct(vector, residual, divisor=divisor, decay=decay)
    return chosen(vector, density=density, k=k, blocks=blocks, spec=spec)


def chunks_of(
    d: int, *, density: float, k: int | None = None, blocks: str = "vector", spec: ModelSpec | None = None
) -> tuple[int, int, int] | None:
    """Return what `top_k_by_chunk` takes: the size of blocks that are alike, how many to take of each, and of the last.

    None where blocks differ, or there is one. Arguments as for `n_selected_by_block`.
    """
    if blocks in ("vector", "layer"):
        return None
    by_block = n_selected_by_block(d, density=density, k=k, blocks=blocks, spec=spec)
    return None if len(by_block) == 1 else (*by_block[0], by_block[-1][1])
