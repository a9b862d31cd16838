"""Plain forms of the kernels between a flat vector and its tensors. Each has the arguments of its kernel.

Stores past the caches have no plain form.
"""

from typing import Any

from numba import uint32
from numba.np.numpy_support import carray

from laconic.kernels.cpu.flatten import pointer_to

# ruff: noqa: ANN401 - numba's own arrays and scalars


def gather(addresses: Any, sizes: Any, out: Any, past_caches: Any) -> Any:
    """See `flatten._gather`."""
    wrong, none, at = uint32(0), out.dtype.type(0), 0
    for i in range(sizes.size):
        part, one = out[at : at + sizes[i]], carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        for k in range(part.size):
            part[k] = one[k]
            wrong |= uint32(one[k] - one[k] != none)
        at += sizes[i]
    return wrong == uint32(0)


def gather_shares(addresses: Any, sizes: Any, out: Any, divisor: Any, limit_: Any, past_caches: Any) -> Any:
    """See `flatten._gather_shares`."""
    by, limit, wrong, at = out.dtype.type(divisor), out.dtype.type(limit_), uint32(0), 0
    for i in range(sizes.size):
        part, one = out[at : at + sizes[i]], carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        for k in range(part.size):
            value = one[k] / by
            part[k] = value
            wrong |= uint32(not (abs(value) <= limit))
        at += sizes[i]
    return wrong == uint32(0)


def gather_change(addresses: Any, sizes: Any, start: Any, plus: Any, out: Any, adds: Any, past_caches: Any) -> Any:
    """See `flatten._gather_change`."""
    wrong, none, at = uint32(0), out.dtype.type(0), 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, before, more = out[at:end], start[at:end], plus[at:end]
        one = carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        if adds:
            for k in range(part.size):
                value = one[k] - before[k] + more[k]
                part[k] = value
                wrong |= uint32(value - value != none)
        else:
            for k in range(part.size):
                value = one[k] - before[k]
                part[k] = value
                wrong |= uint32(value - value != none)
        at = end
    return wrong == uint32(0)


def gather_scaled(addresses: Any, sizes: Any, factors: Any, plus: Any, out: Any, past_caches: Any) -> Any:
    """See `flatten._gather_scaled`."""
    wrong, none, at = uint32(0), out.dtype.type(0), 0
    for i in range(sizes.size):
        end = at + sizes[i]
        part, one = out[at:end], carray(pointer_to(addresses[i]), (sizes[i],), out.dtype)
        by = out.dtype.type(factors[i])
        if plus.size:
            more = plus[at:end]
            for k in range(part.size):
                value = one[k] * by + more[k]
                part[k] = value
                wrong |= uint32(value - value != none)
        else:
            for k in range(part.size):
                value = one[k] * by + none
                part[k] = value
                wrong |= uint32(value - value != none)
        at = end
    return wrong == uint32(0)


def scatter(addresses: Any, sizes: Any, vector: Any, as_sum: Any, past_caches: Any) -> None:
    """See `flatten._scatter`."""
    none, at = vector.dtype.type(0), 0
    for i in range(sizes.size):
        part, out = vector[at : at + sizes[i]], carray(pointer_to(addresses[i]), (sizes[i],), vector.dtype)
        if as_sum:
            for k in range(part.size):
                out[k] = part[k] + none
        else:
            for k in range(part.size):
                out[k] = part[k]
        at += sizes[i]
