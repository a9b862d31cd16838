"""Blocks of neighboring coordinates on the wire: one size for all, or a table of lengths. FORMAT.md, section 3.3."""

import struct
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate, pairwise

from torch import Tensor

from laconic.errors import WireError

FIELDS_BYTES = 8
_FIELDS = struct.Struct("<II")


@lru_cache(maxsize=64)  # so that equal ones are one object, which is fast to compare
def uniform_lengths(size: int, count: int) -> tuple[int, ...]:
    """Return the lengths of blocks of `size` out of `count` coordinates; the last block may be shorter."""
    full, rest = divmod(count, size)
    return (size,) * full + ((rest,) if rest else ())


def uniform_size(lengths: tuple[int, ...]) -> int:
    """Return the length of all blocks, of which the last may be shorter; 0 where the lengths differ otherwise."""
    size = lengths[0]
    return size if lengths[-1] <= size and all(length == size for length in lengths[:-1]) else 0


def blocks_between(lengths: tuple[int, ...], low: int, high: int) -> tuple[slice, tuple[int, ...]]:
    """Return the blocks of some of the coordinates.

    Args:
        lengths: Lengths of all blocks.
        low: First coordinate, counted from the first block's.
        high: Coordinate after the last one.

    Returns:
        Which blocks have any of these coordinates, and how many of them each has.
    """
    stops = list(accumulate(lengths))
    start_block, last_block = bisect_right(stops, low), bisect_left(stops, high)
    bounds = [low, *stops[start_block:last_block], high]
    return slice(start_block, last_block + 1), tuple(stop - start for start, stop in pairwise(bounds))


def write_blocks(lengths: tuple[int, ...]) -> bytes:
    """Return the fields `size` and `blocks`, and the table of lengths where no size describes them."""
    size = uniform_size(lengths)
    table = b"" if size else struct.pack(f"<{len(lengths)}I", *lengths)
    return _FIELDS.pack(size, len(lengths)) + table


def read_block_fields(raw: bytes, count: int, what: str) -> tuple[int, int, int]:
    """Read the fields `size` and `blocks`.

    Args:
        raw: FIELDS_BYTES bytes.
        count: Number of coordinates of all blocks.
        what: Name of the packet kind, for the messages.

    Returns:
        `size`, `blocks`, and the bytes of the table that follows them.

    Raises:
        WireError: The number of blocks does not fit.
    """
    size, blocks = _FIELDS.unpack(raw)
    expected = blocks if size == 0 else -(-count // size)
    if not 1 <= blocks <= count or blocks != expected or size > count:
        raise WireError(f"{what}: {blocks} blocks of {size} for {count} coordinates")
    return size, blocks, 0 if size else 4 * blocks


def read_lengths(table: Tensor, size: int, blocks: int, count: int, what: str) -> tuple[int, ...]:
    """Read the lengths of the blocks.

    Args:
        table: (4 blocks,) uint8; empty where there is a size.
        size: The field; 0 where a table follows.
        blocks: Number of blocks.
        count: Number of coordinates of all blocks.
        what: Name of the packet kind, for the messages.

    Returns:
        The lengths, which add up to `count`.

    Raises:
        WireError: The lengths do not add up, or a size describes them.
    """
    if size:
        return uniform_lengths(size, count)
    lengths = struct.unpack(f"<{blocks}I", bytes(table.numpy()))
    if sum(lengths) != count or min(lengths) < 1:
        raise WireError(f"{what}: block lengths do not add up to {count}")
    if uniform_size(lengths):
        raise WireError(f"{what}: a table of lengths where a block size of {lengths[0]} says the same")
    return lengths
