"""Rows of numbers of which most are 0, kept sparse (CSR).

Shapes: n rows, c columns, k values that are not 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.lab.datasets.dataset import chosen_examples

_CHUNK = 1 << 22  # elements that are dense at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseRows:
    """A matrix (n, c) by its values that are not 0."""

    offsets: Tensor = field(repr=False)
    """(n + 1,) int64: the values of row i are those from offsets[i] to offsets[i + 1]."""
    columns: Tensor = field(repr=False)
    """(k,) int64: the column of each value."""
    values: Tensor = field(repr=False)
    """(k,) float32."""
    n_columns: int
    """c."""

    @classmethod
    def of_dense(cls, dense: Tensor) -> SparseRows:
        """Return the rows of a matrix (n, c) float32."""
        row, column = dense.nonzero(as_tuple=True)
        counts = row.bincount(minlength=len(dense))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return cls(offsets=offsets, columns=column, values=dense[row, column].float(), n_columns=dense.shape[1])

    def with_constant(self) -> SparseRows:
        """Return the rows with one more column, whose values are 1."""
        n = len(self)
        positions = torch.arange(len(self.values)) + self.row_numbers()
        columns = torch.full((len(self.values) + n,), self.n_columns, dtype=torch.int64)
        values = torch.ones(len(columns))
        columns[positions], values[positions] = self.columns, self.values
        offsets = self.offsets + torch.arange(n + 1)
        return SparseRows(offsets=offsets, columns=columns, values=values, n_columns=self.n_columns + 1)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row_numbers(self) -> Tensor:
        """Return the row of each value, (k,) int64."""
        return torch.arange(len(self)).repeat_interleave(self.offsets.diff())

    def taken(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the values of some rows: the place of each one's row among `rows`, its column, and the value."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = lengths.cumsum(0)
        positions = (starts - ends + lengths).repeat_interleave(lengths) + torch.arange(int(lengths.sum()))
        row = torch.arange(len(rows)).repeat_interleave(lengths)
        return row, self.columns[positions], self.values[positions]

    def selected(self, rows: Tensor) -> SparseRows:
        """Return some rows as a matrix of their own."""
        row, columns, values = self.taken(rows)
        counts = row.bincount(minlength=len(rows))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        return SparseRows(offsets=offsets, columns=columns, values=values, n_columns=self.n_columns)


class Products:
    """Products with a sparse matrix X in float64, for figures that are to be exact."""

    def __init__(self, rows: SparseRows) -> None:
        """Keep the matrix as arrays."""
        self._rows = rows.row_numbers().numpy()
        self._columns, self._values = rows.columns.numpy(), rows.values.numpy().astype(numpy.float64)
        self.shape = (len(rows), rows.n_columns)

    def times(self, vector: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return X v, (n,)."""
        return _summed(self._rows, self._values * vector[self._columns], self.shape[0])

    def transposed_times(self, vector: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return X'v, (c,)."""
        return _summed(self._columns, self._values * vector[self._rows], self.shape[1])

    def squared_norms(self) -> NDArray[numpy.float64]:
        """Return the squared norm of each row, (n,)."""
        return _summed(self._rows, self._values**2, self.shape[0])

    def gram(self, weights: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
        """Return X' diag(w) X, (c, c). Rows are dense a few at a time."""
        n, c = self.shape
        total = numpy.zeros((c, c))
        step = max(1, _CHUNK // max(1, c))
        ends = numpy.searchsorted(self._rows, numpy.arange(0, n + step, step))
        for number, start in enumerate(range(0, n, step)):
            part = slice(ends[number], ends[number + 1])
            dense = numpy.zeros((min(step, n - start), c))
            dense[self._rows[part] - start, self._columns[part]] = self._values[part]
            total += dense.T @ (dense * weights[start : start + step, None])
        return total


def _summed(positions: NDArray[numpy.int64], values: NDArray[numpy.float64], count: int) -> NDArray[numpy.float64]:
    """Return the sum of the values at each of `count` positions, added in order."""
    return numpy.bincount(positions, values, count).astype(numpy.float64, copy=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseDataset:
    """Train and test rows with integer labels."""

    name: str
    train: SparseRows = field(repr=False)
    train_labels: Tensor = field(repr=False)
    """(n,) int64, 0 to n_classes - 1."""
    test: SparseRows = field(repr=False)
    test_labels: Tensor = field(repr=False)
    n_classes: int

    def sampled(self, n: int, seed: int) -> SparseDataset:
        """Return the data set with `n` of its train rows, those that `Dataset.sampled` takes. Raises as that does."""
        chosen = chosen_examples(self.name, len(self.train_labels), n, seed)
        return replace(self, train=self.train.selected(chosen), train_labels=self.train_labels[chosen])
