"""The largest magnitudes of each chunk, compiled: a chunk stays in the fastest cache. Reference: `reference/chunks.py`.

Counting the magnitudes above a bound takes one operation for each register of elements, far less than looking at them
one by one. So the bound is searched by counting until somewhat more than k magnitudes are above it; chunks are much
alike, so the bound of one chunk is nearly always good for the next. Then these few candidates are collected, and the
same search among them finds the k-th largest. Nothing is sorted: a range of integers is searched by bisection.

`keys` are the bits of floats as signed integers, and `mask` is all ones but the sign: keys & mask are the magnitudes in
their order, NaN above infinity.
"""

from typing import Any

import numpy as np
import torch
from numba import int32, int64, uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.llvm.vectors import lowest
from laconic.kernels.cpu.threads import in_chunks

Keys = NDArray[Any]  # int32 for float32, int64 for float64
Positions = NDArray[np.int64]

_WORD = 64  # elements whose comparisons make one word


def top_k_by_chunk(vector: Tensor, size: int, k: int, last_k: int) -> Tensor:
    """See `reference.chunks.top_k_by_chunk`."""
    integer = np.int32 if vector.dtype == torch.float32 else np.int64
    keys = vector.detach().contiguous().numpy().view(integer)
    n_chunks = -(-keys.size // size)
    positions = torch.empty((n_chunks - 1) * k + last_k, dtype=torch.int64)
    mask = integer(np.iinfo(integer).max)

    def run(start: int, stop: int) -> None:
        _chunks(keys, mask, size, k, last_k, positions.numpy(), start, stop)

    in_chunks(n_chunks, run, keys.size)
    return positions


@kernel
def _chunks(
    keys: Keys, mask: Any, size: int, k: int, last_k: int, positions: Positions, start: int, stop: int,  # noqa: ANN401
) -> None:  # fmt: skip
    """Write the indices of the largest magnitudes of chunks start .. stop - 1.

    Args:
        keys: (d,) integers.
        mask: All bits but the sign.
        size: Elements of every chunk but the last one.
        k: How many indices to write of every chunk but the last one.
        last_k: How many to write of that.
        positions: Overwritten where the indices of these chunks belong.
        start: Number of the first chunk.
        stop: Number of the chunk behind the last one.
    """
    n_chunks = (keys.size + size - 1) // size
    length = (min(size, keys.size) + _WORD - 1) // _WORD * _WORD
    indices, found, taken = (
        np.empty(length + 1, np.int64),
        np.empty(length + 1, keys.dtype),
        np.empty(length + 1, np.int64),
    )
    bound = keys.dtype.type(-1)
    for chunk in range(start, stop):
        part = keys[chunk * size : min((chunk + 1) * size, keys.size)]
        wanted = k if chunk < n_chunks - 1 else last_k
        low, high = _between(part, mask, wanted, 2 * wanted + _WORD // 2, bound)
        bound = low
        n = _collect(part, mask, low, indices, found)
        for i in range(n, (n + _WORD - 1) // _WORD * _WORD):
            found[i] = 0
        _, threshold = _between_exactly(found[: (n + _WORD - 1) // _WORD * _WORD], wanted, low, high)
        _take(found[:n], indices, threshold, wanted, taken)
        into = positions[chunk * k : chunk * k + wanted]
        for i in range(wanted):
            into[i] = chunk * size + taken[i]


@kernel
def _between(keys: Keys, mask: Any, k: int, capacity: int, guess: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Return two bounds between which the k-th largest magnitude is: above the first, not above the second.

    Args:
        keys: (n,) integers.
        mask: All bits but the sign.
        k: 1 .. n.
        capacity: At least k. No more magnitudes than these are above the lower bound, unless the bounds are neighbors.
        guess: What to try as the lower bound; -1 for no guess.

    Returns:
        The bounds, of the keys' type.
    """
    low, high = keys.dtype.type(-1), mask  # all are above the one, none above the other
    if keys.size <= capacity:
        return low, high
    one = keys.dtype.type(1)
    step = keys.dtype.type(mask >> 11)
    bound = guess if guess >= 0 else keys.dtype.type(mask >> 1)
    raised, lowered = False, False
    while high - one > low:
        n = _n_above(keys, mask, bound)
        if n >= k:
            low, raised = bound, True
            if n <= capacity:
                break
        else:
            high, lowered = bound, True
        half = keys.dtype.type((high >> one) - (low >> one))  # at least 1; high - low might be too large for the type
        if raised and lowered:
            bound = keys.dtype.type(low + half)
        elif raised:
            bound = keys.dtype.type(low + min(step, half))
        else:
            bound = keys.dtype.type(high - min(step, half))
        step = keys.dtype.type(min(step, mask >> 2) << 1)
    return low, high


@kernel
def _between_exactly(keys: Keys, k: int, low: Any, high: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """Halve the range between the bounds of `_between` until they are neighbors; the upper one is the k-th largest.

    Args:
        keys: (n,) magnitudes.
        k: 1 .. n.
        low: A bound that k magnitudes or more are above.
        high: A larger one that fewer than k are above.
    """
    one = keys.dtype.type(1)
    while high - one > low:
        bound = keys.dtype.type(low + ((high >> one) - (low >> one)))
        n = int32(0)
        for i in range(keys.size):
            n += int32(keys[i] > bound)
        if n >= k:
            low = bound
        else:
            high = bound
    return low, high


@kernel
def _n_above(keys: Keys, mask: Any, bound: Any) -> Any:  # noqa: ANN401 - int64
    """Return how many magnitudes are above a bound."""
    n = int32(0)
    for i in range(keys.size):
        n += int32((keys[i] & mask) > bound)
    return int64(n)


@inlined
def _word_above(keys: Keys, at: int, mask: Any, bound: Any) -> Any:  # noqa: ANN401
    """Return a uint64 whose bit i is (keys[at + i] & mask) > bound."""
    word = uint64(0)
    for i in range(_WORD):
        word |= uint64((keys[at + i] & mask) > bound) << uint64(i)
    return word


@kernel
def _collect(keys: Keys, mask: Any, bound: Any, indices: Positions, found: Keys) -> int:  # noqa: ANN401
    """Write where magnitudes are above a bound, and the magnitudes there; return how many."""
    n = 0
    full = keys.size // _WORD * _WORD
    for start in range(0, full, _WORD):
        bits = _word_above(keys, start, mask, bound)
        while bits:
            at = start + lowest(bits)
            indices[n] = at
            found[n] = keys[at] & mask
            n += 1
            bits &= bits - uint64(1)
    for at in range(full, keys.size):
        if (keys[at] & mask) > bound:
            indices[n] = at
            found[n] = keys[at] & mask
            n += 1
    return n


@kernel
def _take(keys: Keys, candidates: Positions, threshold: Any, k: int, taken: Positions) -> None:  # noqa: ANN401
    """Write the candidates above the threshold, and of those at it the first ones: k in all."""
    ties = k
    for i in range(keys.size):
        ties -= keys[i] > threshold
    n = uint64(0)
    for i in range(keys.size):
        taken[n] = candidates[i]
        n += uint64(keys[i] > threshold) | (uint64(keys[i] == threshold) & uint64(ties > 0))
        ties -= keys[i] == threshold
