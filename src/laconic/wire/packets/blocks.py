"""Blocks of neighboring coordinates on the wire: one size for all, or a table of lengths. FORMAT.md, section 3.3."""

import math
import struct

import numpy as np
import torch
from torch import Tensor

from laconic.buffer_pool import LONG_BYTES, new_vector
from laconic.errors import WireError
from laconic.kernels.api import BlockLengths, absolute_maximum, are_sizes, note_place

FIELDS_BYTES = 8
_FIELDS = struct.Struct("<II")


def blocks_between(lengths: BlockLengths, low: int, high: int) -> tuple[slice, BlockLengths]:
    """Return the blocks of some of the coordinates.

    Args:
        lengths: Lengths of all blocks.
        low: First coordinate, counted from the first block's.
        high: Coordinate after the last one.

    Returns:
        Which blocks have any of these coordinates, and how many of them each has.
    """
    size = lengths.size
    if size and low % size == 0:
        return slice(low // size, -(-high // size)), BlockLengths.uniform(size, high - low)
    edges = lengths.edges
    start_block = int(np.searchsorted(edges, low, side="right")) - 1
    stop_block = int(np.searchsorted(edges, high, side="left"))
    bounds = edges[start_block : stop_block + 1].copy()
    bounds[0], bounds[-1] = low, high
    return slice(start_block, stop_block), BlockLengths.of(np.diff(bounds))


def values_of(payload: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a part of a payload as values: a view, or a copy where they do not begin at a multiple of their size."""
    size, place = dtype.itemsize, payload.data_ptr()
    if place % size == 0 and payload.storage_offset() % size == 0:
        return note_place(payload.view(dtype), place)
    return new_vector(payload.nbytes, torch.uint8).copy_(payload).view(dtype)


def copy_of(scales: Tensor) -> Tensor:
    """Return a copy; that of many is in memory that is used again."""
    if scales.nbytes < LONG_BYTES:
        return note_place(scales.clone())
    return new_vector(scales.shape[0], scales.dtype).copy_(scales)


def largest_size(scales: Tensor) -> float | None:
    """Return the largest of scales; None where one is negative, inf or NaN."""
    if scales.nbytes >= LONG_BYTES:
        return absolute_maximum(scales) if are_sizes(scales) else None
    if not scales.shape[0]:
        return 0.0
    low, high = scales.aminmax()
    largest = float(high)
    return largest if float(low) >= 0 and largest < math.inf else None  # both are NaN where one of them is


def write_blocks(lengths: BlockLengths) -> bytes:
    """Return the fields `size` and `blocks`, and the table of lengths where no size describes them."""
    fields = _FIELDS.pack(lengths.size, lengths.n_blocks)
    return fields if lengths.size else fields + lengths.table.astype("<u4").tobytes()


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


def read_lengths(table: Tensor, size: int, blocks: int, count: int, what: str) -> BlockLengths:
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
        return BlockLengths.uniform(size, count)
    numbers = np.frombuffer(table.numpy().tobytes(), dtype="<u4").astype(np.int64)
    if int(numbers.sum()) != count or int(numbers.min()) < 1:
        raise WireError(f"{what}: block lengths do not add up to {count}")
    lengths = BlockLengths.of(numbers)
    if lengths.size:
        raise WireError(f"{what}: a table of lengths where a block size of {lengths.size} says the same")
    return lengths
