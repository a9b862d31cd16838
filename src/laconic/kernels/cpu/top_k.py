"""Exact top-K, compiled: little more than one pass over the vector. Reference: `reference/top_k.py`.

A sample gives a threshold that slightly more than k magnitudes reach. One pass, 64 comparisons at a time, collects
these candidates; counting by leading bits finds the k-th largest among them. Where the sample misled (too few or too
many candidates: constant vectors, mostly zeros, few distinct values), the counting runs over the full vector instead.
Nothing is sorted, so no input takes more than a fixed number of passes. Several threads collect from a range each; the
rest, and counting over the full vector, is done by one thread.

`keys` are the bits of floats as signed integers, and `mask` is all ones but the sign: keys & mask are the magnitudes in
their order, NaN above infinity.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numba import uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.cpu.compile import inlined, kernel
from laconic.kernels.cpu.llvm.vectors import lowest
from laconic.kernels.cpu.threads import in_chunks, is_split

Keys = NDArray[Any]  # int32 for float32, int64 for float64
Positions = NDArray[np.int64]

_MIN_SAMPLE, MAX_SAMPLE = 1 << 11, 1 << 15
_BIN_BITS = 11


def top_k(vector: Tensor, k: int) -> Tensor:
    """See `reference.top_k.top_k`."""
    d = vector.numel()
    integer = np.int32 if vector.dtype == torch.float32 else np.int64
    keys = vector.detach().contiguous().numpy().view(integer)
    mask = integer(np.iinfo(integer).max)
    positions = torch.empty(k + 1, dtype=torch.int64)  # one more: every index is written, and stays if selected
    if d < 4 * _MIN_SAMPLE or k > d // 8 or not _by_sample(keys, mask, positions.numpy()):
        _by_counting(keys, mask, positions.numpy())
    return positions[:k]


def top_k_by_block(vector: Tensor, blocks: Sequence[tuple[int, int]]) -> Tensor:
    """See `reference.top_k.top_k_by_block`."""
    if any(is_split(length) for length, _ in blocks):
        found, start = [], 0
        for length, k in blocks:
            found.append(top_k(vector[start : start + length], k) + start)
            start += length
        return torch.cat(found)
    integer = np.int32 if vector.dtype == torch.float32 else np.int64
    keys = vector.detach().contiguous().numpy().view(integer)
    sizes = np.array(blocks, np.int64)
    n = int(sizes[:, 1].sum())
    positions = torch.empty(n + 1, dtype=torch.int64)
    capacity = int(max_candidates(sizes[:, 0], sizes[:, 1]).max()) + 64
    buffers = np.empty(MAX_SAMPLE, integer), np.empty(capacity, np.int64), np.empty(capacity, integer)
    _by_block(keys, integer(np.iinfo(integer).max), sizes, positions.numpy(), *buffers)
    return positions[:n]


def max_candidates(lengths: Any, k: Any) -> Any:  # noqa: ANN401 - numbers, or arrays of them
    """Return how many candidates of a sampled threshold there may be."""
    return 3 * k + 32 * (lengths // np.clip(lengths // 64, _MIN_SAMPLE, MAX_SAMPLE))


def _by_sample(keys: Keys, mask: Any, positions: Positions) -> bool:  # noqa: ANN401 - a scalar of keys' type
    """Write indices to all of `positions` but the last element. Returns False if the sample misled."""
    k = positions.size - 1
    sample = np.empty(min(max(keys.size // 64, _MIN_SAMPLE), MAX_SAMPLE), keys.dtype)
    threshold = keys.dtype.type(_sampled_threshold(keys, mask, k, sample))
    maximum = int(max_candidates(keys.size, k))
    parts: dict[int, tuple[Keys, Positions, bool]] = {}  # by first element; whether the buffers were long enough

    def collect(start: int, stop: int) -> None:
        capacity = min(maximum, stop - start + 64)
        indices, found = np.empty(capacity, np.int64), np.empty(capacity, keys.dtype)
        n = _collect(keys[start:stop], start, mask, threshold, indices, found)
        parts[start] = found[: max(n, 0)], indices[: max(n, 0)], n >= 0

    in_chunks(keys.size, collect)
    collected = [parts[start] for start in sorted(parts)]
    all_fit = all(fits for _, _, fits in collected)
    if not all_fit or sum(len(found) for found, _, _ in collected) < k:
        return False
    found, indices, _ = collected[0]
    if len(collected) > 1:
        found, indices = (np.concatenate([part[kind] for part in collected]) for kind in (0, 1))
    take_candidates(found, mask, indices, positions)
    return True


@kernel
def _by_block(
    keys: Keys,
    mask: Any,  # noqa: ANN401
    sizes: Positions,
    positions: Positions,
    sample: Keys,
    indices: Positions,
    found: Keys,
) -> None:
    """Write the indices of all blocks' largest magnitudes to all of `positions` but the last element.

    Args:
        keys: (d,) integers.
        mask: All bits but the sign.
        sizes: (blocks, 2), the length of each block and how many indices to write of it.
        positions: Overwritten with indices.
        sample: (MAX_SAMPLE,), a buffer.
        indices: A buffer for the candidates of a block.
        found: A buffer for their keys.
    """
    start, at = 0, 0
    for block in range(sizes.shape[0]):
        length, k = sizes[block, 0], sizes[block, 1]
        into = positions[at : at + k + 1]
        largest_of(keys[start : start + length], mask, k, into, sample, indices, found)
        for i in range(k):
            into[i] += start
        start += length
        at += k


@kernel
def largest_of(
    keys: Keys, mask: Any, k: int, positions: Positions, sample: Keys, indices: Positions, found: Keys,  # noqa: ANN401
) -> Any:  # noqa: ANN401  # fmt: skip
    """Write the indices of the k largest magnitudes to all of `positions` but the last element.

    Buffers as for `_by_block`.

    Returns:
        The k-th largest magnitude.
    """
    n = -1
    if keys.size >= 4 * _MIN_SAMPLE and k <= keys.size // 8:
        sampled = sample[: min(max(keys.size // 64, _MIN_SAMPLE), MAX_SAMPLE)]
        threshold = keys.dtype.type(_sampled_threshold(keys, mask, k, sampled))
        n = _collect(keys, 0, mask, threshold, indices, found)
    if n >= k:
        return take_candidates(found[:n], mask, indices[:n], positions)
    last, n_ties = kth_largest(keys, mask, k)
    _take_all(keys, mask, last, n_ties, positions)
    return last


@kernel
def _by_counting(keys: Keys, mask: Any, positions: Positions) -> None:  # noqa: ANN401
    """Write indices to all of `positions` but the last element, by counting over the full vector."""
    threshold, n_ties = kth_largest(keys, mask, positions.size - 1)
    _take_all(keys, mask, threshold, n_ties, positions)


@kernel
def _sampled_threshold(keys: Keys, mask: Any, k: int, sample: Keys) -> Any:  # noqa: ANN401
    """Return a magnitude that at least k elements reach, and not many more; it fails for one sample in 30,000.

    Args:
        keys: (d,) integers.
        mask: All bits but the sign.
        k: 1 .. d.
        sample: A buffer, overwritten with the sampled keys.
    """
    stride = keys.size // sample.size
    for j in range(sample.size):
        place = uint64(j) * uint64(0x9E3779B97F4A7C15) >> uint64(32)  # evenly spread over 0 .. 2**32 - 1
        sample[j] = keys[j * stride + np.int64(place * uint64(stride) >> uint64(32))]
    expected = k / keys.size * sample.size
    rank = min(sample.size, int(expected + 4 * np.sqrt(expected) + 4))
    return kth_largest(sample, mask, rank)[0]


@kernel
def kth_largest(keys: Keys, mask: Any, k: int) -> tuple[Any, int]:  # noqa: ANN401
    """Return the k-th largest magnitude, and how many of those equal to it belong to the k largest.

    Each round counts the remaining magnitudes in 2**11 bins and keeps one bin: at most 3 rounds for float32, 6 for
    float64. Copying the bin is written without a branch, since no processor could predict it.

    Args:
        keys: (n,) integers.
        mask: All bits but the sign.
        k: 1 .. n.
    """
    low = high = keys[0] & mask
    for i in range(keys.size):
        low = min(low, keys[i] & mask)
        high = max(high, keys[i] & mask)
    wanted = k
    counts = np.empty(1 << _BIN_BITS, np.int64)
    while low < high:
        shift = 0
        while (high - low) >> shift >= counts.size:
            shift += 1
        counts[:] = 0
        for i in range(keys.size):
            counts[uint64(((keys[i] & mask) - low) >> shift)] += 1
        bin_ = (high - low) >> shift
        while counts[bin_] < wanted:
            wanted -= int(counts[bin_])
            bin_ -= 1
        low += bin_ << shift
        high = min(high, low + (1 << shift) - 1)
        left, n = np.empty(counts[bin_] + 1, keys.dtype), uint64(0)
        for i in range(keys.size):
            key = keys[i] & mask
            left[n] = key
            n += uint64(key >= low) & uint64(key <= high)
        keys = left[:-1]
    return low, wanted


@inlined
def _reaching(keys: Keys, at: int, mask: Any, threshold: Any) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return a uint64 whose bit k is (keys[at + k] & mask) >= threshold, for 64 elements."""
    word = uint64(0)
    for k in range(64):
        word |= uint64((keys[at + k] & mask) >= threshold) << uint64(k)
    return word


@kernel
def _collect(keys: Keys, offset: int, mask: Any, threshold: Any, positions: Positions, found: Keys) -> int:  # noqa: ANN401
    """Write where magnitudes reach the threshold, and the keys there.

    Args:
        keys: (n,) integers.
        offset: Index of the first key in the vector.
        mask: All bits but the sign.
        threshold: A magnitude.
        positions: Overwritten with indices.
        found: Overwritten with keys.

    Returns:
        How many; -1 where the buffers are too short.
    """
    n = 0
    full = keys.size // 64 * 64
    for start in range(0, full, 64):
        bits = _reaching(keys, start, mask, threshold)
        if bits and n + 64 > positions.size:
            return -1
        while bits:
            at = start + lowest(bits)
            positions[n] = offset + at
            found[n] = keys[at]
            n += 1
            bits &= bits - uint64(1)
    if n + 64 > positions.size:
        return -1
    for at in range(full, keys.size):
        if (keys[at] & mask) >= threshold:
            positions[n] = offset + at
            found[n] = keys[at]
            n += 1
    return n


@kernel
def take_candidates(keys: Keys, mask: Any, candidates: Positions, positions: Positions) -> Any:  # noqa: ANN401
    """Write the indices of the k largest candidates to all of `positions` but the last element.

    Returns:
        The k-th largest magnitude.
    """
    threshold, n_ties = kth_largest(keys, mask, positions.size - 1)
    n = uint64(0)
    for i in range(keys.size):
        key = keys[i] & mask
        positions[n] = candidates[i]
        n += uint64(key > threshold) | (uint64(key == threshold) & uint64(n_ties > 0))
        n_ties -= key == threshold
    return threshold


@kernel
def _take_all(keys: Keys, mask: Any, threshold: Any, n_ties: int, positions: Positions) -> None:  # noqa: ANN401
    """Write indices above the threshold, and the first n_ties at it, to all of `positions` but the last element."""
    n = uint64(0)
    for i in range(keys.size):
        key = keys[i] & mask
        positions[n] = i
        n += uint64(key > threshold) | (uint64(key == threshold) & uint64(n_ties > 0))
        n_ties -= key == threshold
