"""The hash of coordinates inside kernels on a GPU. Reference: `reference/hashing.py`."""

import triton.language as tl

from laconic.kernels.gpu.compile import kernel


@kernel
def hashed(coordinates: tl.tensor, low_key: tl.tensor, high_key: tl.tensor) -> tl.tensor:
    """Return `reference.hashing.hash32` of coordinates (n,) of any integer type: (n,) uint32."""
    x = coordinates.to(tl.uint32) ^ low_key.to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) + high_key.to(tl.uint32)
    x = x * 0x846CA68B
    return x ^ (x >> 16)
