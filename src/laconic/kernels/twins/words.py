"""Plain loops over 64 elements, each with the arguments and the bits of the LLVM lanes of the same name.

They show what numba makes of an ordinary loop; `docs/kernels.md` says what lanes must gain over that. Stores past the
caches have no plain form, so one twin stands for both forms.
"""

from typing import Any

from numba import uint32, uint64

from laconic.kernels.cpu.hashing import hash32

# ruff: noqa: ANN401 - numba's own arrays and scalars


def selected(coordinate: Any, low: Any, high: Any, limit: Any) -> Any:
    """See `vectors.selected`."""
    word = uint64(0)
    for k in range(64):
        x = hash32(uint32(coordinate + uint32(k)), low, high)
        word |= uint64(x <= limit) << uint64(k)
    return word


def add_signs_at(total: Any, at: Any, negative: Any, mask: Any, size: Any) -> Any:
    """See `vectors.add_signs_at`."""
    none = total.dtype.type(0)
    for k in range(64):
        sign = -size if (negative >> uint64(k)) & uint64(1) else size
        total[at + k] += sign if (mask >> uint64(k)) & uint64(1) else none
