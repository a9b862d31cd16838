"""What the parameters of a model are: their names, shapes and places in the flat vector. Letter: d parameters."""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One parameter tensor, and where its elements are in the flat vector."""

    name: str
    shape: tuple[int, ...]
    offset: int
    """Index of its first element in the vector of its ModelSpec."""

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether it has at least two dimensions, and elements."""
        return len(self.shape) > 1 and self.size > 0

    @property
    def rows(self) -> int:
        """Number of rows of a matrix: its first dimension."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns of a matrix: the product of its other dimensions."""
        return self.size // self.rows

    def of(self, vector: Tensor) -> Tensor:
        """Return the elements of a vector (d,) that belong to this tensor, as a view.

        Returns:
            (rows, columns) of a matrix, otherwise (size,).
        """
        elements = vector[self.offset : self.offset + self.size]
        return elements.view(self.rows, self.columns) if self.is_matrix else elements


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The parameter tensors of a model in the order of the flat vector, or those of a slice of it."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offset: int = 0
    """Index of the first element in the vector of the full model."""

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shapes):
            raise ValueError(f"ModelSpec: {len(self.names)} names for {len(self.shapes)} shapes; give one for each")

    @classmethod
    def of_sizes(cls, *sizes: int) -> "ModelSpec":
        """Return a model of flat tensors of these sizes; with one size, a single vector."""
        return cls.of_shapes(*((size,) for size in sizes))

    @classmethod
    def of_shapes(cls, *shapes: tuple[int, ...]) -> "ModelSpec":
        """Return a model of tensors of these shapes, named by their number."""
        return cls(names=tuple(f"tensor{number}" for number in range(len(shapes))), shapes=shapes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of elements of the tensors."""
        return tuple(map(math.prod, self.shapes))

    @cached_property
    def block_sizes(self) -> tuple[int, ...]:
        """The sizes without those of empty tensors: what a method that treats each tensor by itself works on."""
        return tuple(size for size in self.sizes if size)

    @cached_property
    def d(self) -> int:
        """Number of elements of all tensors, the length of the flat vector."""
        return sum(self.sizes)

    @cached_property
    def stop(self) -> int:
        """Index after the last element in the vector of the full model."""
        return self.offset + self.d

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Indices of the tensors' first elements in this vector."""
        return (0, *accumulate(self.sizes))[:-1]

    @cached_property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensors, each with its name, shape and offset."""
        given = zip(self.names, self.shapes, self.offsets, strict=True)
        return tuple(TensorSpec(name=name, shape=shape, offset=offset) for name, shape, offset in given)

    @cached_property
    def matrices(self) -> tuple[TensorSpec, ...]:
        """The tensors with at least two dimensions; `of` gives their elements as (rows, columns)."""
        return tuple(tensor for tensor in self.tensors if tensor.is_matrix)

    @cached_property
    def vectors(self) -> tuple[TensorSpec, ...]:
        """The tensors with elements that are no matrices."""
        return tuple(tensor for tensor in self.tensors if tensor.size and not tensor.is_matrix)

    def part(self, offset: int, size: int) -> "ModelSpec":
        """Return the spec of the slice offset .. offset + size - 1 of this vector.

        A tensor that lies in the slice keeps its name and shape. One that is cut counts as a flat vector of the
        elements inside, and no longer as a matrix: its name gets their range within the tensor, as in "weight[10:20]".
        Tensors without elements in the slice are left out.

        Raises:
            ValueError: The slice is not within the vector.
        """
        if not (offset >= 0 and 0 <= size <= self.d - offset):
            raise ValueError(f"ModelSpec: the slice {offset} .. {offset + size - 1} must be within 0 .. {self.d - 1}")
        if size == self.d:
            return self
        names, shapes = [], []
        for tensor in self.tensors:
            start = max(offset - tensor.offset, 0)
            stop = min(offset + size - tensor.offset, tensor.size)
            if start < stop:
                is_partial = stop - start < tensor.size
                names.append(f"{tensor.name}[{start}:{stop}]" if is_partial else tensor.name)
                shapes.append((stop - start,) if is_partial else tensor.shape)
        return ModelSpec(names=tuple(names), shapes=tuple(shapes), offset=self.offset + offset)
