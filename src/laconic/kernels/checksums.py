"""Vectors with their largest magnitude and their checksum: a part of the kernels' face."""

from collections.abc import Sequence

from torch import Tensor

from laconic.kernels import checks
from laconic.kernels.checked_tensors import CheckedTensors
from laconic.kernels.dispatch import fastest
from laconic.kernels.reference import checksums as reference_checksums
from laconic.kernels.reference.landed import Landed


def largest_and_checksum(vector: Tensor, found: int = 0) -> tuple[float, int]:
    """Return the largest magnitude of `vector` (d,), NaN if it has one, and its CRC-32, after `found` of bytes before.

    See `reference/checksums.py`, also below.
    """
    checks.vector("largest_and_checksum", "vector", vector, checks.ALL_FLOATS)
    checks.number("largest_and_checksum", "found", found, 0, reference_checksums.INVERTED)
    made: tuple[float, int] = fastest("checksums", vector.device).largest_and_checksum(vector, found)
    return made


def add_up_with_checksum(
    vectors: Sequence[Tensor], out: Tensor, *, divisor: int = 1, from_zero: bool = True
) -> tuple[float, int]:
    """Write what `add_up` does to `out` (d,), none of the vectors; return its largest magnitude and its CRC-32.

    See `reference/checked_sums.py`.
    """
    checks.sum_of("add_up_with_checksum", vectors, out, divisor)
    made: tuple[float, int] = fastest("checked_sums", out.device).add_up_with_checksum(
        vectors, out, divisor=divisor, from_zero=from_zero
    )
    return made


def gather_with_checksum(tensors: Sequence[Tensor], out: Tensor) -> tuple[float, int]:
    """Copy tensors into `out` (d,); return the largest magnitude, NaN if it has one, and the CRC-32 of its bytes."""
    tensors = CheckedTensors.of(tensors)
    checks.output("gather_with_checksum", "out", out, checks.ALL_FLOATS)
    checks.tensors("gather_with_checksum", tensors, out.shape[0])
    made: tuple[float, int] = fastest("checksums", out.device).gather_with_checksum(tensors, out)
    return made


def sum_landed(
    vectors: Sequence[Tensor], came: int, out: Tensor, *, divisor: int = 1, sends_on: bool = False
) -> Landed:
    """Write the sum of `vectors`, (d,) each, to `out` (d,), and look at the one that has come, whose index is `came`.

    See `reference/landed.py`.
    """
    checks.sum_of("sum_landed", vectors, out, divisor)
    checks.number("sum_landed", "came", came, 0, len(vectors) - 1)
    made: Landed = fastest("landed", out.device).sum_landed(vectors, came, out, divisor=divisor, sends_on=sends_on)
    return made
