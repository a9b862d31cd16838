"""Where blocks of a vector begin and end, for kernels: from their size, or from a table."""

from typing import Any

from numpy.typing import NDArray

from laconic.kernels.cpu.compile import kernel

Array = NDArray[Any]


@kernel
def edge_of(block: int, size: int, edges: Array, count: int) -> Any:  # noqa: ANN401 - numba's own integer
    """Return where a block begins; `count` for the one behind the last one.

    Args:
        block: Number of the block.
        size: The size of all blocks but the last; 0 where `edges` has them.
        edges: (blocks + 1,) int64, where blocks begin and end; empty where there is a size.
        count: Number of elements of all blocks.
    """
    if size > 0:
        return min(block * size, count)
    return edges[min(block, edges.size - 1)]


@kernel
def block_at(element: int, size: int, edges: Array) -> int:
    """Return the number of the block that an element is in. Arguments as for `edge_of`."""
    if size > 0:
        return element // size
    low, high = 0, edges.size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if edges[middle] <= element:
            low = middle
        else:
            high = middle
    return low
