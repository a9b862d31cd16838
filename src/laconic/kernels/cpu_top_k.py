"""Exact top-K in machine code: little more than one reading of the vector.

A sample gives a threshold that a little more than k magnitudes reach. One pass, 64 comparisons at a time,
collects those; counting by leading bits finds the k-th among them. Where the sample misled (too few or too many
candidates: constant vectors, mostly zeros, few distinct values), the counting runs over the whole vector instead.
Nothing is ever sorted, so no input is worse than a fixed number of passes. Several threads collect from a range each;
the rest, and counting over the whole vector, is one thread's.

`keys` are a float vector's bits as signed integers and `mask` is all ones but the sign: keys & mask are the magnitudes
in their order, NaN above infinity.
"""

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import uint64
from numpy.typing import NDArray
from torch import Tensor

from laconic.kernels.compiled import kernel
from laconic.kernels.cpu_words import LANES, WORD, Block, Codegen, intrinsic, lowest, splat, types
from laconic.kernels.threads import in_chunks

Keys = NDArray[Any]  # int32 for float32, int64 for float64
Positions = NDArray[np.int64]

_LEAST_SAMPLE, _MOST_SAMPLE = 1 << 11, 1 << 15
_BIN_BITS = 11


def top_k(vector: Tensor, k: int) -> Tensor:
    """The positions of the k largest magnitudes, ties by the lower position: (d,) -> (k,) int64, ascending."""
    d = vector.numel()
    assert 1 <= k <= d, (k, d)
    integer = np.int32 if vector.dtype == torch.float32 else np.int64
    keys = vector.detach().contiguous().numpy().view(integer)
    mask = integer(np.iinfo(integer).max)
    positions = torch.empty(k + 1, dtype=torch.int64)  # one to spare: each place is written, and kept where it is due
    if d < 4 * _LEAST_SAMPLE or k > d // 8 or not _by_sample(keys, mask, positions.numpy()):
        _by_counting(keys, mask, positions.numpy())
    return positions[:k]


def _by_sample(keys: Keys, mask: Any, positions: Positions) -> bool:  # noqa: ANN401 - a scalar of keys' type
    """Into all of `positions` but the last one, unless the sample misled."""
    k = positions.size - 1
    sample = np.empty(min(max(keys.size // 64, _LEAST_SAMPLE), _MOST_SAMPLE), keys.dtype)
    threshold = keys.dtype.type(_sampled_threshold(keys, mask, k, sample))
    most = 3 * k + 32 * (keys.size // sample.size)
    parts: dict[int, tuple[Keys, Positions, bool]] = {}  # by their beginnings; whether there was room

    def collect(start: int, stop: int) -> None:
        room = min(most, stop - start + 64)
        places, found = np.empty(room, np.int64), np.empty(room, keys.dtype)
        n = _collect(keys[start:stop], start, mask, threshold, places, found)
        parts[start] = found[: max(n, 0)], places[: max(n, 0)], n >= 0

    in_chunks(keys.size, collect)
    collected = [parts[start] for start in sorted(parts)]
    has_room = all(fits for _, _, fits in collected)
    if not has_room or sum(len(found) for found, _, _ in collected) < k:
        return False
    found, places, _ = collected[0]
    if len(collected) > 1:
        found, places = (np.concatenate([part[kind] for part in collected]) for kind in (0, 1))
    _take(found, mask, places, positions)
    return True


@kernel
def _by_counting(keys: Keys, mask: Any, positions: Positions) -> None:  # noqa: ANN401
    threshold, n_ties = _kth_largest(keys, mask, positions.size - 1)
    _take_all(keys, mask, threshold, n_ties, positions)


@kernel
def _sampled_threshold(keys: Keys, mask: Any, k: int, sample: Keys) -> Any:  # noqa: ANN401
    """A magnitude that, but for one sample in 30,000, at least k of all reach, and not many more. Fills `sample`."""
    stride = keys.size // sample.size
    for j in range(sample.size):
        place = uint64(j) * uint64(0x9E3779B97F4A7C15) >> uint64(32)  # an even spread over 0 .. 2**32 - 1
        sample[j] = keys[j * stride + np.int64(place * uint64(stride) >> uint64(32))]
    expected = k / keys.size * sample.size
    rank = min(sample.size, int(expected + 4 * np.sqrt(expected) + 4))
    return _kth_largest(sample, mask, rank)[0]


@kernel
def _kth_largest(keys: Keys, mask: Any, k: int) -> tuple[Any, int]:  # noqa: ANN401
    """The k-th largest magnitude, and how many of those equal to it belong to the k largest.

    Each round counts the magnitudes that are left in 2**11 bins and keeps one bin: at most 3 rounds for float32, 6 for
    float64. What is kept is written without a branch, for nobody could guess it.
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


@intrinsic  # type: ignore[untyped-decorator]
def _reaching(typing: Any, keys: Any, at: Any, mask: Any, threshold: Any) -> Codegen:  # noqa: ANN401
    """uint64: bit k is (keys[at + k] & mask) >= threshold, of 64 entries."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ANN401
        keys, at, *scalars = args
        block = Block(context, builder, signature.args, at)
        mask, threshold = (splat(builder, scalar, block.LANES) for scalar in scalars)
        word = ir.Constant(WORD, 0)
        for piece in range(0, LANES, block.LANES):
            block.piece = piece
            reached = builder.icmp_signed(">=", builder.and_(block.read(keys, 0), mask), threshold)
            bits = builder.zext(builder.bitcast(reached, ir.IntType(block.LANES)), WORD)
            word = builder.or_(word, builder.shl(bits, ir.Constant(WORD, piece)))
        return word

    return types.uint64(keys, types.intp, keys.dtype, keys.dtype), codegen


@kernel
def _collect(keys: Keys, first: int, mask: Any, threshold: Any, positions: Positions, found: Keys) -> int:  # noqa: ANN401
    """Where magnitudes reach the threshold, and the keys there. Returns how many; -1 where there is no room.

    first: the position of the first key.
    """
    n = 0
    whole = keys.size // 64 * 64
    for start in range(0, whole, 64):
        bits = _reaching(keys, start, mask, threshold)
        if bits and n + 64 > positions.size:
            return -1
        while bits:
            at = start + lowest(bits)
            positions[n] = first + at
            found[n] = keys[at]
            n += 1
            bits &= bits - uint64(1)
    if n + 64 > positions.size:
        return -1
    for at in range(whole, keys.size):
        if (keys[at] & mask) >= threshold:
            positions[n] = first + at
            found[n] = keys[at]
            n += 1
    return n


@kernel
def _take(keys: Keys, mask: Any, candidates: Positions, positions: Positions) -> None:  # noqa: ANN401
    """The largest of the candidates, whose keys are given, into all of `positions` but the last one."""
    threshold, n_ties = _kth_largest(keys, mask, positions.size - 1)
    n = uint64(0)
    for i in range(keys.size):
        key = keys[i] & mask
        positions[n] = candidates[i]
        n += uint64(key > threshold) | (uint64(key == threshold) & uint64(n_ties > 0))
        n_ties -= key == threshold


@kernel
def _take_all(keys: Keys, mask: Any, threshold: Any, n_ties: int, positions: Positions) -> None:  # noqa: ANN401
    """The positions above the threshold, and the first n_ties at it, into all of `positions` but the last one."""
    n = uint64(0)
    for i in range(keys.size):
        key = keys[i] & mask
        positions[n] = i
        n += uint64(key > threshold) | (uint64(key == threshold) & uint64(n_ties > 0))
        n_ties -= key == threshold
