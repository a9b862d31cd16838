"""The hash of a coordinate, for ordinary loops. Lanes: `llvm/vectors.py`; reference: `reference/hashing.py`."""

from typing import Any

from numba import uint32

from laconic.kernels.cpu.compile import inlined
from laconic.kernels.reference.hashing import FACTOR_1, FACTOR_2


@inlined
def hash32(coordinate: Any, low: Any, high: Any) -> Any:  # noqa: ANN401 - numba's own scalars
    """Return `reference.hashing.hash32` of one coordinate, uint32; `low` and `high` are the halves of the mixed key."""
    x = uint32(coordinate ^ low)
    x = uint32(uint32(x ^ uint32(x >> uint32(16))) * uint32(FACTOR_1))
    x = uint32(uint32(x ^ uint32(x >> uint32(15))) + high)
    x = uint32(x * uint32(FACTOR_2))
    return uint32(x ^ uint32(x >> uint32(16)))
