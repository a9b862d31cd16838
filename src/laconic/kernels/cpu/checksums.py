"""The largest magnitude of a vector and its checksum in one pass, compiled. Reference: `reference/checksums.py`."""

from collections.abc import Sequence

from torch import Tensor

from laconic.kernels.cpu.finite import magnitude_of, patterns_of
from laconic.kernels.cpu.flatten import are_contiguous_floats, gather_tiles, spans_of
from laconic.kernels.cpu.passing import Folded, look_through
from laconic.kernels.reference import checksums as reference_checksums


def largest_and_checksum(vector: Tensor, found: int = 0) -> tuple[float, int]:
    """See `reference.checksums.largest_and_checksum`."""
    if not are_contiguous_floats([vector], vector.dtype):
        return reference_checksums.largest_and_checksum(vector, found)
    folded = Folded(vector, is_read=True)
    largest = look_through(*patterns_of(vector), folded.blocks)
    return magnitude_of(largest, vector.dtype), folded.checksum(found)


def gather_with_checksum(tensors: Sequence[Tensor], out: Tensor) -> tuple[float, int]:
    """See `reference.checksums.gather_with_checksum`."""
    spans = spans_of(tensors, out)
    if spans is None:
        return reference_checksums.gather_with_checksum(tensors, out)
    folded = Folded(out)
    largest = gather_tiles(*spans, *patterns_of(out), folded.how)
    return magnitude_of(largest, out.dtype), folded.checksum()
