"""The largest magnitudes of each chunk, compiled: a chunk stays in the fastest cache. Reference: `reference/chunks.py`.

Comparing the magnitudes with a bound takes one operation for each register of elements, far less than looking at them
one by one. So the bound is searched by counting until somewhat more than k magnitudes are above it; chunks are much
alike, so the bound of one chunk is nearly always good for the next. Then these few candidates are collected, and the
same search among them finds the k-th largest. Nothing is sorted: a range of integers is searched by bisection.

`keys` are the bits of floats as signed integers, and `mask` is all ones but the sign: keys & mask are the magnitudes in
their order, NaN above infinity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import int32, uint32, uint64
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.flatten import pointer_to, spans_of
from laconic.kernels.cpu.llvm.vectors import Words, lowest, population
from laconic.kernels.cpu.threads import in_chunks
from laconic.kernels.reference import chunks as reference_chunks

Array = NDArray[Any]
Keys = NDArray[Any]  # int32 for float32, int64 for float64
Floats = NDArray[Any]
Positions = NDArray[np.int64]

_WORD = 64  # elements whose comparisons make one word


def top_k_by_chunk(vector: Tensor, size: int, k: int, last_k: int) -> Tensor:
    """See `reference.chunks.top_k_by_chunk`."""
    floats = vector.detach().contiguous().numpy()
    return _chosen(floats, floats[:0], 1.0, 1.0, size, k, last_k)


def correct_top_k_by_chunk(
    vector: Tensor, residual: Tensor, size: int, k: int, last_k: int, *, divisor: int = 1, decay: float = 1.0
) -> Tensor:
    """See `reference.chunks.correct_top_k_by_chunk`."""
    return _chosen(vector.numpy(), residual.contiguous().numpy(), float(divisor), decay, size, k, last_k)


def gather_top_k_by_chunk(
    tensors: Sequence[Tensor], factors: Sequence[float], out: Tensor, residual: Tensor, size: int, k: int, last_k: int,
    *, decay: float = 1.0,
) -> tuple[bool, Tensor]:  # fmt: skip
    """See `reference.chunks.gather_top_k_by_chunk`."""
    spans = spans_of(tensors, out)
    if spans is None:
        return reference_chunks.gather_top_k_by_chunk(
            tensors, factors, out, residual, size, k, last_k, decay=decay
        )  # fmt: skip
    floats, rest, by = out.numpy(), residual.contiguous().numpy(), np.array(factors)
    keys, mask = _as_keys(floats)
    n_chunks = -(-keys.size // size)
    positions = torch.empty((n_chunks - 1) * k + last_k, dtype=torch.int64)
    finite: list[bool] = []  # by range

    def run(start: int, stop: int) -> None:
        finite.append(_gather_chunks(
            *spans, by, floats, keys, rest, floats.dtype.type(decay), mask, size, k, last_k, positions.numpy(),
            start, stop,
        ))  # fmt: skip

    in_chunks(n_chunks, run, keys.size)
    return all(finite), positions


def _as_keys(floats: Floats) -> tuple[Keys, Any]:
    """Return the same memory as integers, and all bits but the sign."""
    integer = np.int32 if floats.itemsize == 4 else np.int64
    return floats.view(integer), integer(np.iinfo(integer).max)


def _chosen(floats: Floats, residual: Floats, divisor: float, decay: float, size: int, k: int, last_k: int) -> Tensor:
    """Return the indices of the largest magnitudes of each chunk, (n,); an empty residual is none."""
    keys, mask = _as_keys(floats)
    n_chunks = -(-keys.size // size)
    positions = torch.empty((n_chunks - 1) * k + last_k, dtype=torch.int64)
    factors = floats.dtype.type(divisor), floats.dtype.type(decay)

    def run(start: int, stop: int) -> None:
        _chunks(floats, keys, residual, factors, mask, size, k, last_k, positions.numpy(), start, stop)

    in_chunks(n_chunks, run, keys.size)
    return positions


@kernel
def _chunks(
    floats: Floats, keys: Keys, residual: Floats, factors: tuple[Any, Any], mask: Any, size: int, k: int, last_k: int,  # noqa: ANN401
    positions: Positions, start: int, stop: int,
) -> None:  # fmt: skip
    """Write the indices of the largest magnitudes of chunks start .. stop - 1.

    Args:
        floats: (d,), overwritten by floats / divisor + decay residual where there is a residual.
        keys: The same memory as integers.
        residual: (d,), or empty.
        factors: The divisor of the floats and the decay of the residual.
        mask: All bits but the sign.
        size: Elements of every chunk but the last one.
        k: How many indices to write of every chunk but the last one.
        last_k: How many to write of that.
        positions: Overwritten where the indices of these chunks belong.
        start: Number of the first chunk.
        stop: Number of the chunk behind the last one.
    """
    n_chunks = (keys.size + size - 1) // size
    buffers, bound = _buffers(keys, size), mask >> 1
    for chunk in range(start, stop):
        at, end = chunk * size, min((chunk + 1) * size, keys.size)
        if residual.size:
            _correct(floats[at:end], residual[at:end], factors)
        wanted = k if chunk < n_chunks - 1 else last_k
        bound = _choose(keys[at:end], mask, wanted, bound, buffers, at, positions[chunk * k : chunk * k + wanted])


@kernel
def _gather_chunks(
    addresses: Array, lengths: Array, factors: Array, floats: Floats, keys: Keys, residual: Floats, decay: Any,  # noqa: ANN401
    mask: Any, size: int, k: int, last_k: int, positions: Positions, start: int, stop: int,  # noqa: ANN401
) -> bool:  # fmt: skip
    """Write chunks start .. stop - 1 of tensors times their factors, plus decay residual; choose as `_chunks` does.

    Args:
        addresses: (tensors,), as `spans_of` finds them.
        lengths: (tensors,), likewise.
        factors: (tensors,) float64.
        decay: The decay of the residual; the other arguments are those of `_chunks`.

    Returns:
        Whether no product is inf or NaN.
    """
    n_chunks, wrong, none, number = (keys.size + size - 1) // size, uint32(0), floats.dtype.type(0), floats.dtype.type
    buffers, bound = _buffers(keys, size), mask >> 1
    tensor, begin = 0, start * size
    for chunk in range(start, stop):
        at, end = chunk * size, min((chunk + 1) * size, keys.size)
        written = at
        while written < end:
            while begin >= lengths[tensor]:
                tensor, begin = tensor + 1, begin - lengths[tensor]
            n = min(end - written, lengths[tensor] - begin)
            one = carray(pointer_to(addresses[tensor] + uint64(begin * floats.itemsize)), (n,), floats.dtype)
            part, rest, by = floats[written : written + n], residual[written : written + n], number(factors[tensor])
            for i in range(n):
                value = one[i] * by + none
                wrong |= uint32(value - value != none)
                part[i] = value + decay * rest[i]
            written, begin = written + n, begin + n
        wanted = k if chunk < n_chunks - 1 else last_k
        bound = _choose(keys[at:end], mask, wanted, bound, buffers, at, positions[chunk * k : chunk * k + wanted])
    return bool(wrong == uint32(0))


@kernel
def _buffers(keys: Keys, size: int) -> tuple[Words, Positions, Keys, Positions]:
    """Return what `_choose` needs for chunks of a size: words, indices, magnitudes, and the indices that are taken."""
    n_words = (min(size, keys.size) + _WORD - 1) // _WORD
    n = n_words * _WORD
    return np.empty(n_words, np.uint64), np.empty(n, np.int64), np.empty(n, keys.dtype), np.empty(n + 1, np.int64)


@kernel
def _choose(
    part: Keys, mask: Any, wanted: int, bound: Any, buffers: tuple[Words, Positions, Keys, Positions], at: int,  # noqa: ANN401
    into: Positions,
) -> Any:  # noqa: ANN401  # fmt: skip
    """Write where the largest magnitudes of a chunk are, counted from `at` before it; return the next one's bound."""
    words, indices, found, taken = buffers
    low, high = _bounds(part, mask, wanted, 2 * wanted + _WORD // 2, bound, words)
    n = _collect(part, mask, words, indices, found)
    threshold = _exact(found[:n], wanted, low, high)
    _take(found[:n], indices, threshold, wanted, taken)
    for i in range(wanted):
        into[i] = at + taken[i]
    return max(low, part.dtype.type(0))


@kernel
def _correct(part: Floats, residual: Floats, factors: tuple[Any, Any]) -> None:
    """Write part / divisor + decay residual over the part."""
    divisor, decay = factors
    if divisor == part.dtype.type(1):
        for i in range(part.size):
            part[i] = part[i] + decay * residual[i]
    else:
        for i in range(part.size):
            part[i] = part[i] / divisor + decay * residual[i]


@kernel
def _bounds(keys: Keys, mask: Any, k: int, capacity: int, guess: Any, words: Words) -> tuple[Any, Any]:  # noqa: ANN401
    """Return two bounds between which the k-th largest magnitude is: above the first, not above the second.

    Args:
        keys: (n,) integers.
        mask: All bits but the sign.
        k: 1 .. n.
        capacity: At least k. No more magnitudes than these are above the lower bound, unless the bounds are neighbors.
        guess: What to try as the lower bound.
        words: Overwritten: bit i is set where magnitude i is above the lower bound.

    Returns:
        The bounds, of the keys' type. The lower one may be -1.
    """
    low, high, one = keys.dtype.type(-1), mask, keys.dtype.type(1)  # all are above the one, none above the other
    step = keys.dtype.type(mask >> 11)  # an eighth of the way to the next power of two, in float32
    bound, raised, lowered = keys.dtype.type(guess), False, False
    while keys.size > capacity and high - one > low:
        n = _mark(keys, mask, bound, words)
        if n >= k:
            low, raised = bound, True
            if n <= capacity:
                return low, high
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
    _mark(keys, mask, low, words)
    return low, high


@inlined
def _word_above(keys: Keys, at: int, mask: Any, bound: Any) -> Any:  # noqa: ANN401
    """Return a uint64 whose bit i is (keys[at + i] & mask) > bound."""
    word = uint64(0)
    for i in range(_WORD):
        word |= uint64((keys[at + i] & mask) > bound) << uint64(i)
    return word


@kernel
def _mark(keys: Keys, mask: Any, bound: Any, words: Words) -> Any:  # noqa: ANN401
    """Set bit i of the words where magnitude i is above a bound, clear the others, and return how many are: int64."""
    n, full = 0, keys.size // _WORD
    for number in range(full):
        word = _word_above(keys, number * _WORD, mask, bound)
        words[number] = word
        n += population(word)
    rest = keys[full * _WORD :]
    if rest.size:
        word = uint64(0)
        for i in range(rest.size):
            word |= uint64((rest[i] & mask) > bound) << uint64(i)
        words[full] = word
        n += population(word)
    return n


@kernel
def _collect(keys: Keys, mask: Any, words: Words, indices: Positions, found: Keys) -> Any:  # noqa: ANN401
    """Write the indices of the marked magnitudes, and these; return how many, int64."""
    n = 0
    for number in range((keys.size + _WORD - 1) // _WORD):
        bits = words[number]
        while bits:
            indices[n] = number * _WORD + lowest(bits)
            n += 1
            bits &= bits - uint64(1)
    for i in range(n):
        found[i] = keys[uint64(indices[i])] & mask
    return n


@kernel
def _exact(keys: Keys, k: int, low: Any, high: Any) -> Any:  # noqa: ANN401
    """Return the k-th largest of magnitudes, by bisection of what is between two bounds.

    Args:
        keys: (n,) magnitudes.
        k: 1 .. n.
        low: A bound that k magnitudes or more are above.
        high: A larger one that fewer than k are above.
    """
    one, largest = keys.dtype.type(1), keys[0]
    for i in range(keys.size):
        largest = max(largest, keys[i])
    high = min(high, largest)
    while high - one > low:
        bound = keys.dtype.type(low + ((high >> one) - (low >> one)))
        n = int32(0)
        for i in range(keys.size):
            n += int32(keys[i] > bound)
        if n >= k:
            low = bound
        else:
            high = bound
    return high


@kernel
def _take(keys: Keys, candidates: Positions, threshold: Any, k: int, taken: Positions) -> None:  # noqa: ANN401
    """Write the candidates above the threshold, and of those at it the first ones: k in all, and one more of any."""
    ties = k
    for i in range(keys.size):
        ties -= keys[i] > threshold
    n = uint64(0)
    for i in range(keys.size):
        taken[n] = candidates[i]
        n += uint64(keys[i] > threshold) | (uint64(keys[i] == threshold) & uint64(ties > 0))
        ties -= keys[i] == threshold
