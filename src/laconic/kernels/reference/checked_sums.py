"""Sums of vectors with their checksum: the reference, in torch."""

from collections.abc import Sequence

from torch import Tensor

from laconic.kernels.reference.checksums import checksum_of
from laconic.kernels.reference.sums import add_up


def add_up_with_checksum(
    vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True
) -> tuple[float, int]:
    """Write the sum of vectors as `sums.add_up` does, to a vector that is none of them.

    Args:
        vectors: At least one; (d,) each, of the type of `out`.
        out: (d,), overwritten.
        divisor: What the sum is divided by.
        from_zero: Whether the sum begins with 0, or with the first vector.

    Returns:
        The largest magnitude of `out`, NaN if it has one; and the CRC-32 of its bytes.
    """
    return add_up(vectors, out, divisor=divisor, from_zero=from_zero), checksum_of(out)
