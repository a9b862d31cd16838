"""The lengths of neighboring blocks of a vector. Blocks of one size take no memory for each of them."""

from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_NO_EDGES: NDArray[np.int64] = np.zeros(0, np.int64)


class BlockLengths(Sequence[int]):
    """Lengths of blocks that lie behind each other: of one size, where the last may be shorter, or of any."""

    def __init__(self, lengths: NDArray[np.int64], size: int, count: int) -> None:
        """Take what `of` and `uniform` make.

        Args:
            lengths: (blocks,), of blocks that no size describes; empty otherwise.
            size: The length of all blocks but the last; 0 where no size describes them.
            count: The sum of the lengths.
        """
        self.size = size
        """The length of all blocks but the last, which is at most as long; 0 where no size describes them."""
        self.total = count
        """Number of elements of all blocks."""
        self._table = lengths
        self.n_blocks = -(-count // size) if size else len(lengths)
        """Number of blocks."""

    @classmethod
    def of(cls, lengths: "Sequence[int] | NDArray[np.int64]") -> "BlockLengths":
        """Return the lengths as this class; those that are of it already as they are.

        Raises:
            ValueError: A length is below 1.
        """
        if type(lengths) is BlockLengths:
            return lengths
        return _from_tuple(lengths) if isinstance(lengths, tuple) and len(lengths) <= _FEW else _made_of(lengths)

    @classmethod
    def uniform(cls, size: int, count: int) -> "BlockLengths":
        """Return blocks of `size` out of `count` elements; the last block may be shorter."""
        return cls(_NO_EDGES, min(size, count), count)

    def __len__(self) -> int:
        return self.n_blocks

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(self.n_blocks))]
        place = at + self.n_blocks if at < 0 else at
        if not 0 <= place < self.n_blocks:
            raise IndexError(f"block {at} of {self.n_blocks}")
        if not self.size:
            return int(self._table[place])
        return min(self.size, self.total - place * self.size)

    def __iter__(self) -> Iterator[int]:
        return map(self.__getitem__, range(self.n_blocks))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, tuple):  # as a method may name them in `Accept`; as a key they are not its equal
            return tuple(self) == other
        if not isinstance(other, BlockLengths):
            return NotImplemented
        if (self.size, self.total) != (other.size, other.total):
            return False
        return bool(self.size) or np.array_equal(self._table, other._table)

    def __hash__(self) -> int:
        return hash((self.size, self.total, self.n_blocks))

    def __repr__(self) -> str:
        if self.n_blocks <= _SHOWN:
            return f"({', '.join(map(str, self))}{',' if self.n_blocks == 1 else ''})"
        return f"({self[0]}, {self[1]}, {self[2]}, ..., {self[-1]}: {self.n_blocks} blocks)"

    @property
    def table(self) -> NDArray[np.int64]:
        """(blocks,) int64, the lengths, where no size describes them; otherwise empty. Not to be written to."""
        return self._table

    @property
    def longest(self) -> int:
        """The length of the longest block; 0 where there is none."""
        return self.size or int(self._table.max(initial=0))

    @property
    def are_short(self) -> bool:
        """Whether a kernel should not treat them one by one: they have fewer than 32 elements each, on average."""
        return self.total < _SHORT * self.n_blocks

    @cached_property
    def edges(self) -> NDArray[np.int64]:
        """Where each block begins, and where the last one ends: (blocks + 1,) int64. Not to be written to."""
        if self.size:
            return np.append(np.arange(0, self.total, self.size), self.total)
        return np.concatenate([_NO_EDGES, [0], self._table.cumsum()])

    @property
    def sparse_edges(self) -> NDArray[np.int64]:
        """The same where no size describes the lengths; otherwise empty."""
        return _NO_EDGES if self.size else self.edges

    def on(self, device: torch.device) -> Tensor:
        """Return the lengths as a tensor (blocks,) int64."""
        if not self.size:
            return torch.from_numpy(self._table).to(device)
        lengths = torch.full((self.n_blocks,), self.size, dtype=torch.int64, device=device)
        if self.n_blocks:
            lengths[-1] = self[-1]
        return lengths


_FEW = 4096  # blocks of a tuple that is remembered
_SHOWN = 8
_SHORT = 32


@lru_cache(maxsize=256)
def _from_tuple(lengths: tuple[int, ...]) -> BlockLengths:
    return _made_of(lengths)


def _made_of(lengths: Sequence[int] | NDArray[np.int64]) -> BlockLengths:
    table: NDArray[Any] = np.array(lengths, np.int64).reshape(-1)
    if table.size == 0:
        return BlockLengths(_NO_EDGES, 0, 0)
    if table.min() < 1:
        raise ValueError(f"lengths has a block of {table.min()} elements; a block has at least one")
    size, count = int(table[0]), int(table.sum())
    if table[-1] <= size and bool((table[:-1] == size).all()):
        return BlockLengths(_NO_EDGES, size, count)
    return BlockLengths(table, 0, count)
