"""LIBSVM (svmlight) lines: a label, and the features that are not 0 as index:value.

scikit-learn's reader names no line, and refuses a blank behind the colon, which published files have.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.classes import Examples, Labeled, assemble, divided
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.numbers import is_finite, number_of
from laconic.lab.datasets.sparse import SparseDataset, SparseRows
from laconic.lab.datasets.text_file import existing_file, numbered_lines, shown
from laconic.statements import warn

# A dense table grows with its highest feature index, so one wrong index could need terabytes.
MAX_DENSE_ELEMENTS = 1 << 30  # 4 GiB of float32
_WANTED = "a LIBSVM text file: one `label index:value ...` line per example"
_NUMBER = r"[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
_LINE = re.compile(rf"\s*({_NUMBER})(\s+qid\s*:\s*[0-9]++)?((?:\s+[0-9]{{1,18}}+\s*:\s*{_NUMBER})*+)\s*")


@dataclass(eq=False)
class _Sparse:
    """The examples of one file as they are read."""

    path: Path
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    sizes: array[int] = field(default_factory=lambda: array("q"))
    """Number of values by example."""
    columns: array[int] = field(default_factory=lambda: array("q"))
    """The column of each value, from 0."""
    values: array[float] = field(default_factory=lambda: array("f"))
    width: int = 0
    """One more than the highest column."""
    widest: int = 0
    """The line of the highest column."""

    def labeled(self) -> Labeled:
        """Return the labels."""
        return Labeled(path=self.path, labels=self.labels, lines=self.lines)

    def rows(self, width: int) -> SparseRows:
        """Return the features, in `width` columns."""
        sizes = torch.from_numpy(numpy.frombuffer(self.sizes, dtype=numpy.int64).copy())
        return SparseRows(
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)]),
            columns=torch.from_numpy(numpy.frombuffer(self.columns, dtype=numpy.int64).copy()),
            values=torch.from_numpy(numpy.frombuffer(self.values, dtype=numpy.float32).copy()), n_columns=width,
        )  # fmt: skip


def libsvm_table(path: Path | None = None, *, test_data: Path | None = None, index_base: int = 1) -> Dataset:
    """Sparse rows as dense vectors, values unchanged; --data is a LIBSVM (svmlight) text file.

    Args:
        path: The file, packed or not.
        test_data: A file of test examples; None takes one line in five of `path`.
        index_base: 1, or 0 where the indices of features count from 0.

    Returns:
        Inputs of shape (n, c), where c is the number of features up to the highest index in either file. Classes are
        numbered as `assemble` says.

    Raises:
        DatasetError: The file is missing or empty, an item is not `index:value`, a value is not a finite float32
            number, there are more than 2**30 dense values, or fewer than two classes. The message names the line.

    Warns:
        UserWarning: Queries (qid) are ignored, or only test examples have the last features.
    """
    train, test, width = _read_both(path, test_data, index_base)
    test_examples = None if test is None else _examples(test, width)
    return assemble("libsvm", _examples(train, width), test_examples, standardize=False)


def libsvm_rows(path: Path | None = None, *, test_data: Path | None = None, index_base: int = 1) -> SparseDataset:
    """Return the rows of a LIBSVM file as they are, sparse. Arguments and errors are those of `libsvm_table`."""
    train, test, width = _read_both(path, test_data, index_base)
    division = divided(train.labeled(), None if test is None else test.labeled())
    rows = train.rows(width)
    if division.rows is None:
        assert test is not None
        train_rows, test_rows = rows, test.rows(width)
    else:
        train_rows, test_rows = (rows.selected(each) for each in division.rows)
    return SparseDataset(
        name="libsvm", train=train_rows, train_labels=division.train_labels, test=test_rows,
        test_labels=division.test_labels, n_classes=division.n_classes,
    )  # fmt: skip


def _read_both(path: Path | None, test_data: Path | None, index_base: int) -> tuple[_Sparse, _Sparse | None, int]:
    """Return the examples of both files, and their number of features."""
    train = _read(existing_file("libsvm", path, _WANTED), index_base)
    test = None
    if test_data is not None:
        test = _read(existing_file("libsvm", test_data, _WANTED, option="test_data"), index_base)
    width = train.width if test is None else max(train.width, test.width)
    if test is not None and test.width > train.width:
        warn(
            f"{test.path}: line {test.widest} has feature {width - 1 + index_base}, but those of {train.path} end at "
            f"{train.width - 1 + index_base}; the features above are 0 in training",
        )  # fmt: skip
    return train, test, width


def _examples(sparse: _Sparse, width: int) -> Examples:
    n = len(sparse.lines)
    if n * width > MAX_DENSE_ELEMENTS:
        raise DatasetError(
            f"{sparse.path}: {n:,} examples of {width:,} features make {n * width:,} dense values, must be at most "
            f"{MAX_DENSE_ELEMENTS:,}; is the highest index mistyped? It is in line {sparse.widest}"
        )
    dense: NDArray[numpy.float32] = numpy.zeros((n, width), dtype=numpy.float32)
    rows = numpy.repeat(numpy.arange(n), numpy.frombuffer(sparse.sizes, dtype=numpy.int64))
    dense[rows, numpy.frombuffer(sparse.columns, dtype=numpy.int64)] = numpy.frombuffer(
        sparse.values, dtype=numpy.float32
    )
    return Examples(path=sparse.path, features=dense, labels=sparse.labels, lines=sparse.lines, columns=())


def _read(path: Path, index_base: int) -> _Sparse:
    """Read a file, line by line."""
    sparse = _Sparse(path)
    query_line = 0
    for line, text in numbered_lines(path):
        before_comment = text.partition("#")[0]
        if not before_comment.strip():
            continue
        found = _LINE.fullmatch(before_comment)
        if found is None:
            raise DatasetError(f"{path}: line {line}: {_fault_in(before_comment)}")
        label, query, items = found.groups()
        query_line = query_line or (line if query else 0)
        words = items.replace(":", " ").split()
        indices, values = list(map(int, words[0::2])), list(map(float, words[1::2]))
        _check_indices(path, line, indices, index_base)
        if not (is_finite(float(label)) and all(map(is_finite, values))):
            raise DatasetError(f"{path}: line {line}: {_fault_in(before_comment)}")
        sparse.labels.append(label)
        sparse.lines.append(line)
        sparse.sizes.append(len(indices))
        sparse.columns.extend(index - index_base for index in indices)
        sparse.values.extend(values)
        if indices and indices[-1] - index_base >= sparse.width:
            sparse.width, sparse.widest = indices[-1] - index_base + 1, line
    if query_line:
        warn(
            f"{path}: line {query_line} has a query (qid); queries are ignored, since rows are classified one by one",
        )  # fmt: skip
    if not sparse.values:
        raise DatasetError(
            f"{path}: empty: holds {len(sparse.lines)} examples with 0 values, must hold at least one; lines are "
            "`label index:value ...`"
        )
    return sparse


def _check_indices(path: Path, line: int, indices: list[int], index_base: int) -> None:
    """Refuse indices that do not rise, below the base or beyond any table."""
    if not indices:
        return
    if indices[0] < index_base:
        raise DataOptionError(
            f"{path}: line {line}: index {indices[0]} must be at least {index_base}; if the features of this file "
            "count from 0, ", Named("index_base", 0), " reads them",
        )  # fmt: skip
    last = index_base - 1
    for index in indices:
        if index <= last:
            twice = f"index {index} stands there twice" if index == last else f"index {index} follows {last}"
            raise DatasetError(
                f"{path}: line {line}: {twice}, must rise within a line; sort the items, and leave one of each index"
            )
        last = index
    if last > MAX_DENSE_ELEMENTS:
        raise DatasetError(
            f"{path}: line {line}: index {last:,} makes an example of that many dense values, must be at most "
            f"{MAX_DENSE_ELEMENTS:,}; is it mistyped?"
        )


def _fault_in(text: str) -> str:
    """Return a message about the first item of a line that is not valid."""
    label, *items = re.sub(r"\s*:\s*", ":", text).split()
    if ":" in label:
        return f"begins with {shown(label)}, must begin with a label; lines are `label index:value ...`"
    if not is_finite(number_of(label)) or not re.fullmatch(_NUMBER, label):
        return f"label {shown(label)} must be one finite number; number the classes"
    for item in items:
        index, _, value = item.partition(":")
        if index == "qid" and value.isdecimal():
            continue
        if not (index.isascii() and index.isdecimal() and re.fullmatch(_NUMBER, value) and is_finite(float(value))):
            return f"item {shown(item)} must be index:value with a finite float32 value; mend or remove it"
        if len(index) > 18:
            return f"index {shown(index)} makes too many dense values, must be at most {MAX_DENSE_ELEMENTS:,}; mend it"
    return "a query (qid) must stand behind the label, once"
