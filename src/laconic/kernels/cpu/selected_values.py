"""Values of the elements that a mask selects, compiled, 64 at a time, the same bits.

Reference: `reference/selected_values.py`.
"""

from typing import Any

import numpy as np
import torch
from numba import int64, uint64
from torch import Tensor

from laconic.buffer_pool import BUFFER_POOL
from laconic.kernels import checks
from laconic.kernels.cpu.compile import kernel
from laconic.kernels.cpu.llvm.vectors import Words, low_bits
from laconic.kernels.cpu.mask_streams import Array, Draw, draw_from, mask_at, ones, padded, placed
from laconic.kernels.cpu.threads import is_split
from laconic.kernels.reference import selected_values as reference_selected_values
from laconic.kernels.reference.hashing import key_words

_FLOATS = (torch.float32, torch.float64)
_NO_MASK = np.empty(0, np.uint64)


def take_selected(values: Tensor, share: float, offset: int, key: int, threshold: int) -> Tensor:
    """See `reference.selected_values.take_selected`."""
    if values.dtype not in _FLOATS:
        return reference_selected_values.take_selected(values, share, offset, key, threshold)
    given, draw = values.detach().contiguous().numpy(), (offset, *key_words(key), threshold)
    buffer = BUFFER_POOL.borrow(given.itemsize * max(1, len(given)))  # pages that are never written take no memory
    selected = buffer.view(values.dtype)
    out, divisor = selected.numpy(), given.dtype.type(share)
    ends: list[int] = []

    def use(start: int, stop: int, n: int, sampled: Words) -> None:
        last = len(out) if not is_split(len(given)) else n + _n_selected(stop - start, sampled, draw)
        ends.append(n + int(_take(given[start:stop], divisor, draw_from(draw, start), sampled, out[n:last])))

    placed(len(given), draw, _NO_MASK, use)
    return selected[: max(ends)]


def _n_selected(count: int, sampled: Words, draw: Draw) -> int:
    """Return how many of the first `count` elements of a mask are selected; an empty mask selects all."""
    if not sampled.size:  # all are selected
        return count
    rest = int(sampled[count // 64]) & ((1 << count % 64) - 1) if count % 64 else 0
    return int(ones(sampled, 0, count // 64)) + rest.bit_count()


def put_selected(
    selected: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None = None
) -> None:
    """See `reference.selected_values.put_selected`."""
    if not _write("put_selected", selected, offset, key, threshold, out, sampled, times=0):
        reference_selected_values.put_selected(selected, offset, key, threshold, out, sampled)


def add_selected(
    selected: Tensor, offset: int, key: int, threshold: int, total: Tensor, sampled: Tensor | None = None,
    *, subtract: bool = False,
) -> None:  # fmt: skip
    """See `reference.selected_values.add_selected`."""
    times = -1 if subtract else 1
    if not _write("add_selected", selected, offset, key, threshold, total, sampled, times=times):
        reference_selected_values.add_selected(selected, offset, key, threshold, total, sampled, subtract=subtract)


def _write(
    call: str, selected: Tensor, offset: int, key: int, threshold: int, out: Tensor, sampled: Tensor | None,
    *, times: int,
) -> bool:  # fmt: skip
    """Write or add the values. Returns False, and does nothing, for a type that numpy does not have."""
    if selected.dtype not in _FLOATS or out.dtype not in _FLOATS:  # numpy has no bfloat16
        return False
    values, elements = selected.contiguous().numpy(), out.detach().numpy()
    draw = (offset, *key_words(key), threshold)
    used: list[int] = []
    sign = elements.dtype.type(times)

    def use(start: int, stop: int, n: int, mask_words: Words) -> None:
        used.append(int(_scatter(values, n, draw_from(draw, start), mask_words, elements[start:stop], sign)))

    placed(len(elements), draw, _NO_MASK if sampled is None else padded(sampled, len(elements)), use)
    checks.stream(call, selected, max(used))
    return True


@kernel
def _take(values: Array, share: Any, draw: Draw, sampled: Words, out: Array) -> Any:  # noqa: ANN401
    """Write the selected values, divided.

    Args:
        values: (count,) floats.
        share: The divisor, of the values' type.
        draw: The mask's coordinates, key and threshold.
        sampled: The mask as words, or empty to sample it here.
        out: Overwritten; may be longer than needed.

    Returns:
        How many were selected.
    """
    buffer = np.empty(64, values.dtype)
    n, one, capacity = uint64(0), uint64(1), uint64(out.size)  # unsigned: no index is checked for its sign
    for place in range(0, values.size, 64):
        part = values[place : place + 64]
        mask = sampled[place >> 6] if sampled.size else mask_at(draw, place)
        if part.size < 64:
            mask &= low_bits(part.size)
        for i in range(part.size):
            buffer[i] = part[i] / share
        if n + uint64(64) <= capacity:  # an element that is not selected is overwritten by the next one that is
            for i in range(part.size):
                out[n] = buffer[i]
                n += mask & one
                mask >>= one
        else:
            for i in range(part.size):
                if mask & one:
                    out[n] = buffer[i]
                    n += one
                mask >>= one
    return int64(n)


@kernel
def _scatter(selected: Array, start: int, draw: Draw, sampled: Words, out: Array, sign: Any) -> Any:  # noqa: ANN401
    """Write or add values at the selected elements.

    Args:
        selected: All values.
        start: How many of them belong to elements before `out`.
        draw: The mask's coordinates, key and threshold.
        sampled: The mask as words, or empty to sample it here.
        out: (count,).
        sign: 1 to add, -1 to subtract, 0 to overwrite; of the type of `out`.

    Returns:
        How many values belong to elements up to the last one of `out`, also where `selected` has fewer.
    """
    buffer, choice = np.empty(64, out.dtype), np.zeros(2, out.dtype)  # selecting by index costs less than a branch
    n, one, capacity = uint64(start), uint64(1), uint64(selected.size)
    for place in range(0, out.size, 64):
        part = out[place : place + 64]
        mask = sampled[place >> 6] if sampled.size else mask_at(draw, place)
        if part.size < 64:
            mask &= low_bits(part.size)
        if n + uint64(64) < capacity:
            for i in range(part.size):
                choice[1] = selected[n]
                buffer[i] = choice[mask & one]
                n += mask & one
                mask >>= one
        else:
            for i in range(part.size):
                buffer[i] = choice[0]
                if mask & one:
                    if n < capacity:
                        buffer[i] = selected[n]
                    n += one
                mask >>= one
        if sign != 0:
            for i in range(part.size):
                part[i] += sign * buffer[i]
        else:
            for i in range(part.size):
                part[i] = buffer[i]
    return int64(n)
