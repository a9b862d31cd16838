"""Blocks of neighboring coordinates on the wire: one size for all, or a table of lengths. FORMAT.md, section 3.3."""

import struct

from torch import Tensor

from laconic.errors import WireError

FIELDS_BYTES = 8
_FIELDS = struct.Struct("<II")


def uniform_lengths(size: int, count: int) -> tuple[int, ...]:
    """Blocks of `size`, the last one shorter where it must be."""
    full, rest = divmod(count, size)
    return (size,) * full + ((rest,) if rest else ())


def uniform_size(lengths: tuple[int, ...]) -> int:
    """The length that all blocks share, save that the last one may be shorter; 0 where they do not."""
    size = lengths[0]
    return size if lengths[-1] <= size and all(length == size for length in lengths[:-1]) else 0


def write_blocks(lengths: tuple[int, ...]) -> bytes:
    """size, blocks and, where no size says the same, the table of lengths."""
    size = uniform_size(lengths)
    table = b"" if size else struct.pack(f"<{len(lengths)}I", *lengths)
    return _FIELDS.pack(size, len(lengths)) + table


def read_block_fields(raw: bytes, count: int, what: str) -> tuple[int, int, int]:
    """size, blocks and the bytes of the table that follows them, for `count` coordinates; raw: FIELDS_BYTES.

    Raises WireError for a number of blocks that does not fit.
    """
    size, blocks = _FIELDS.unpack(raw)
    expected = blocks if size == 0 else -(-count // size)
    if not 1 <= blocks <= count or blocks != expected or size > count:
        raise WireError(f"{what}: {blocks} blocks of {size} for {count} coordinates")
    return size, blocks, 0 if size else 4 * blocks


def read_lengths(table: Tensor, size: int, blocks: int, count: int, what: str) -> tuple[int, ...]:
    """The lengths of the blocks, which add up to count; table: (4 blocks,) uint8, empty where there is a size.

    Raises WireError for lengths that do not add up, or that a size could tell.
    """
    if size:
        return uniform_lengths(size, count)
    lengths = struct.unpack(f"<{blocks}I", bytes(table.numpy()))
    if sum(lengths) != count or min(lengths) < 1:
        raise WireError(f"{what}: block lengths do not add up to {count}")
    if uniform_size(lengths):
        raise WireError(f"{what}: a table of lengths where a block size of {lengths[0]} says the same")
    return lengths
