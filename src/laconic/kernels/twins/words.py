"""Plain loops over 64 elements, each with the arguments and the bits of the LLVM lanes of the same name.

They show what numba makes of an ordinary loop; `docs/kernels.md` says what lanes must gain over that. Stores past the
caches have no plain form, so one twin stands for both forms.
"""

from typing import Any

from numba import uint32, uint64

from laconic.kernels.cpu.compile import inlined

# ruff: noqa: ANN401 - numba's own arrays and scalars


@inlined
def hashed(coordinate: Any, low: Any, high: Any) -> Any:
    """Return `reference.hashing.hash32` of one coordinate."""
    x = uint32(coordinate ^ low)
    x = uint32(x ^ uint32(x >> uint32(16)))
    x = uint32(x * uint32(0x7FEB352D))
    x = uint32(x ^ uint32(x >> uint32(15)))
    x = uint32(x + high)
    x = uint32(x * uint32(0x846CA68B))
    return uint32(x ^ uint32(x >> uint32(16)))


def selected(coordinate: Any, low: Any, high: Any, limit: Any) -> Any:
    """See `vectors.selected`."""
    word = uint64(0)
    for k in range(64):
        x = hashed(uint32(coordinate + uint32(k)), low, high)
        word |= uint64(x <= limit) << uint64(k)
    return word


def add_signs_at(total: Any, at: Any, negative: Any, mask: Any, size: Any) -> Any:
    """See `vectors.add_signs_at`."""
    none = total.dtype.type(0)
    for k in range(64):
        sign = -size if (negative >> uint64(k)) & uint64(1) else size
        total[at + k] += sign if (mask >> uint64(k)) & uint64(1) else none


def reaching(keys: Any, at: Any, mask: Any, threshold: Any) -> Any:
    """See `top_k._reaching`."""
    word = uint64(0)
    for k in range(64):
        word |= uint64((keys[at + k] & mask) >= threshold) << uint64(k)
    return word
