"""Tables of separated values, a number in each cell and a class in one column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy
from numpy.typing import NDArray

from laconic.errors import Named
from laconic.lab.datasets.classes import Examples, assemble
from laconic.lab.datasets.csv_columns import Columns, find_columns
from laconic.lab.datasets.csv_rows import Row, Rows, read_rows
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.numbers import (
    FLOAT32_MAX,
    MISSING_LABELS,
    is_finite,
    is_missing,
    number_of,
    with_decimal_point,
)
from laconic.lab.datasets.text_file import existing_file, shown
from laconic.statements import warn

_WANTED = "a .csv file: numeric columns, the class in the last one"


def csv_table(
    path: Path | None = None,
    *,
    test_data: Path | None = None,
    label_column: str = "last",
    drop_columns: str | None = None,
    header: str = "auto",
    missing: str = "refuse",
    encoding: str | None = None,
) -> Dataset:
    """Numeric columns, features standardized; --data is a .csv file with the class in its last column.

    Args:
        path: A file of values that are separated by commas, semicolons, tabs, vertical bars or spaces, packed or not.
        test_data: A file of test examples with the same columns; None takes one row in five of `path`.
        label_column: Where the class is: "last", "first", a name of the header or a number from 1.
        drop_columns: Names or numbers of columns to leave out, with commas between them; "none" leaves none out, and
            None what numbers the rows in a column without a name.
        header: Whether the first row names the columns: "yes", "no", or "auto" to see it by the first row.
        missing: What a missing value does: "refuse" it, "drop" its row, or put the "mean" of the train rows there.
        encoding: How the text is encoded; None for UTF-8, or UTF-16 with its mark.

    Returns:
        Inputs of shape (n, c), standardized by the train rows' mean and standard deviation; a column that is constant
        over the train rows is only shifted, so it is 0 there. Classes are numbered as `assemble` says.

    Raises:
        DatasetError: The file is missing or empty, a cell is not a finite float32 number, rows have different
            lengths, a label is missing, or there are fewer than two classes. The message names the line.
    """
    table = read_rows(existing_file("csv", path, _WANTED), encoding)
    columns, rows = find_columns(table, header=header, label_column=label_column, drop_columns=drop_columns)
    examples = _examples(table, columns, rows, missing)
    test = None
    if test_data is not None:
        test_table = read_rows(existing_file("csv", test_data, _WANTED, option="test_data"), encoding)
        test_rows = _test_rows(test_table, table, columns, header)
        test = _examples(test_table, columns, test_rows, missing)
    return assemble("csv", examples, test, standardize=True)


def _test_rows(test: Rows, train: Rows, columns: Columns, header: str) -> Sequence[Row]:
    """Return the test file's rows without its header, which must be that of the train file if both have one."""
    if test.width != columns.width:
        raise DataOptionError(
            f"{test.path}: line {test.rows[0].line} has {test.width} cells, must have {columns.width} as {train.path} "
            "has, in the same order, with the label"
        )
    top = test.rows[0]
    features = [top.cells[column] for column in columns.features]
    is_example = all(number_of(with_decimal_point(cell)) is not None or is_missing(cell) for cell in features)
    if header == "no" or not columns.names or (header == "auto" and is_example):
        return test.rows
    for column, (cell, name) in enumerate(zip(top.cells, columns.names, strict=True)):
        if cell != name and header == "auto":
            raise DataOptionError(
                f"{test.path}: line {top.line}: column {column + 1} is {shown(cell)}, must be {shown(name)} as in "
                f"{train.path}; put the columns in one order, or ", Named("header", "yes"), " if only names differ",
            )  # fmt: skip
    return test.rows[1:]


def _examples(table: Rows, columns: Columns, rows: Sequence[Row], missing: str) -> Examples:
    """Return the features, NaN where a value is missing and `missing` is "mean", and the labels."""
    features = numpy.empty((len(rows), len(columns.features)), dtype=numpy.float64)
    labels: list[str] = []
    lines: list[int] = []
    reader = _Cells(table, columns, missing, is_top=rows[0] is table.rows[0])
    for row in rows:
        values = reader.values(row)
        if values is not None:
            features[len(lines)] = values
            labels.append(row.cells[columns.label])
            lines.append(row.line)
    reader.say(len(rows) - len(lines))
    if not lines:
        raise DataOptionError(
            f"{table.path}: every row has a missing value, and ", Named("missing", "drop"), " leaves none; leave out "
            "the column that has them, or take ", Named("missing", "mean"),
        )  # fmt: skip
    names = [columns.named(column) for column in columns.features]
    return Examples(path=table.path, features=features[: len(lines)], labels=labels, lines=lines, columns=names)


class _Cells:
    """Reads the numbers of one row after the other."""

    def __init__(self, table: Rows, columns: Columns, missing: str, *, is_top: bool) -> None:
        self._path = table.path
        self._has_commas = table.separator == ","
        self._columns = columns
        self._missing = missing
        self._top = table.rows[0].line if is_top else None
        self._n_filled = 0
        self._comma_line: int | None = None

    def values(self, row: Row) -> Sequence[float] | NDArray[numpy.float64] | None:
        """Return the features of a row; None if it is left out."""
        if row.cells[self._columns.label].lower() in MISSING_LABELS:
            if self._missing == "drop":
                return None
            raise self._refusal(row, self._columns.label, "a missing label, must be a class", "drop")
        cells = [row.cells[column] for column in self._columns.features]
        joined = "".join(cells)
        if joined.isascii() and "_" not in joined:
            try:
                values = numpy.array(list(map(float, cells)))
            except ValueError:
                pass
            else:
                if numpy.abs(values).max() <= FLOAT32_MAX:
                    return values
        return self._slowly(row)

    def _slowly(self, row: Row) -> list[float] | None:
        """Return the features of a row in which not all cells are ordinary numbers."""
        values: list[float] = []
        for column in self._columns.features:
            cell = row.cells[column]
            if is_missing(cell):
                if self._missing == "refuse":
                    raise self._refusal(row, column, "a missing value, must be a number", "drop", "mean")
                if self._missing == "drop":
                    return None
                self._n_filled += 1
                values.append(numpy.nan)
                continue
            value = number_of(cell)
            if value is None and not self._has_commas and (value := number_of(with_decimal_point(cell))) is not None:
                self._comma_line = self._comma_line or row.line
            if value is None or not is_finite(value):
                raise self._no_number(row, column)
            values.append(value)
        return values

    def _where(self, row: Row, column: int) -> str:
        return f"{self._path}: line {row.line}, {self._columns.named(column)}: {shown(row.cells[column])}"

    def _refusal(self, row: Row, column: int, complaint: str, *remedies: str) -> DataOptionError:
        words = {"drop": " leaves such rows out", "mean": " puts the mean of the train rows there"}
        parts: list[str | Named] = [f"{self._where(row, column)} is {complaint}; "]
        for number, remedy in enumerate(remedies):
            parts += [", or " if number else "", Named("missing", remedy), words[remedy]]
        return DataOptionError(*parts)

    def _no_number(self, row: Row, column: int) -> DataOptionError:
        parts: list[str | Named] = [f"{self._where(row, column)} must be a finite float32 number; mend it"]
        if row.line == self._top and not self._columns.names:
            parts += [", or read this line as a header: ", Named("header", "yes")]
        if number_of(row.cells[column]) is None:
            parts += [", or leave the column out: ", Named("drop_columns", column + 1), "; or is it the label: ",
                      Named("label_column", column + 1)]  # fmt: skip
        return DataOptionError(*parts)

    def say(self, n_dropped: int) -> None:
        """Say what was done to the values."""
        if n_dropped:
            _say(self._path, f"{n_dropped} rows with missing values are left out")
        if self._n_filled:
            _say(self._path, f"{self._n_filled} missing values are replaced by the mean of their column's train rows")
        if self._comma_line is not None:
            _say(self._path, f"line {self._comma_line} is the first with decimal commas, which are read as points")


def _say(path: Path, text: str) -> None:
    warn(f"{path}: {text}")
