"""What values that have just come make with others, and a look at them, in one pass: the reference, in torch."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from laconic.kernels.reference.checksums import largest_and_checksum
from laconic.kernels.reference.sums import add_up


class Landed(NamedTuple):
    """What was seen of values that have come, and of what was made of them."""

    largest: float
    """The largest magnitude that has come; NaN if there is one."""
    checksum: int
    """The CRC-32 of the bytes that have come."""
    made_largest: float
    """The largest magnitude that was made; NaN if there is one."""
    made_checksum: int | None
    """The CRC-32 of the bytes that were made; None if nobody asked for it."""


def sum_landed(
    vectors: Sequence[Tensor], came: int, out: Tensor, *, divisor: int = 1, sends_on: bool = False
) -> Landed:
    """Write the sum of vectors to `out` (d,), added in their order, and look at the one that has come.

    Args:
        vectors: At least one; (d,) each, of the type of `out`.
        came: Index of the one that has come.
        out: Overwritten; it may be the first vector, if that has not come.
        divisor: What the sum is divided by.
        sends_on: Whether to make the checksum of `out`.
    """
    seen = largest_and_checksum(vectors[came])
    made = add_up(vectors, out, divisor=divisor, from_zero=False)
    return Landed(*seen, made, largest_and_checksum(out)[1] if sends_on else None)
