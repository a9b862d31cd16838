"""The plain loop that stands for the lanes of `cpu/llvm/gathered_top_k.py`, with the same bits."""

from typing import Any

from numba import uint32, uint64

from laconic.kernels.cpu.gathered_top_k import _keep_largest
from laconic.kernels.cpu.llvm.vectors import lowest

# ruff: noqa: ANN401 - numba's own arrays and scalars

_TILE = 1 << 10  # elements, a multiple of 64


def scaled(
    one: Any, by: Any, plus: Any, out: Any, keys: Any, offset: int, mask: Any, floor: Any, k: int, indices: Any,
    found: Any, n: int, past: bool,
) -> tuple[int, Any, Any]:  # fmt: skip
    """See `gathered_top_k._scaled`."""
    wrong, none, full = uint32(0), out.dtype.type(0), out.size // 64 * 64
    for start in range(0, full, _TILE):  # which stays in the cache until its words are made
        stop = min(start + _TILE, full)
        part, its_ones = out[start:stop], one[start:stop]
        if plus.size:
            its_more = plus[start:stop]
            for i in range(part.size):
                value = its_ones[i] * by + its_more[i]
                part[i] = value
                wrong |= uint32(value - value != none)
        else:
            for i in range(part.size):
                value = its_ones[i] * by + none
                part[i] = value
                wrong |= uint32(value - value != none)
        for place in range(start, stop, 64):
            bits = uint64(0)
            for i in range(64):  # by unsigned indices: one that may be negative keeps the loop from lanes
                bits |= uint64((keys[uint64(place) + uint64(i)] & mask) >= floor) << uint64(i)
            if bits and n + 64 > indices.size:
                floor, n = min(_keep_largest(found[:n], mask, indices[:n], k) + 1, mask), k
            while bits:
                at = place + lowest(bits)
                indices[n] = offset + at
                found[n] = keys[at]
                n += 1
                bits &= bits - uint64(1)
    if n + 64 > indices.size:
        floor, n = min(_keep_largest(found[:n], mask, indices[:n], k) + 1, mask), k
    for at in range(full, out.size):
        value = one[at] * by + (plus[at] if plus.size else none)
        out[at] = value
        wrong |= uint32(value - value != none)
        if (keys[at] & mask) >= floor:
            indices[n] = offset + at
            found[n] = keys[at]
            n += 1
    return n, floor, wrong
