"""Tables from text: comma-separated values with the label last, and LIBSVM (svmlight) lines.

Neither format has a test split of its own, so a fixed stratified 80/20 split divides the rows.
Shapes: n rows, c feature columns.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from laconic.errors import DatasetError, Named
from laconic.lab.datasets.dataset import DataOptionError, Dataset
from laconic.lab.datasets.split import stratified_split

FLOAT32_MAX = float(torch.finfo(torch.float32).max)
# A dense table grows with its highest feature index, so one wrong index could need terabytes.
MAX_DENSE_ELEMENTS = 1 << 30  # 4 GiB of float32
INTEGER_PATTERN = re.compile(r"[+-]?[0-9]{1,18}")


def csv_table(path: Path | None = None) -> Dataset:
    """Numeric columns, features standardized; --data is a .csv file with the class in its last column.

    The first row is a header when none of its feature cells is a number. Whole-number labels are
    sorted by value, other labels as text, and numbered from 0.

    Returns:
        Inputs of shape (n, c), standardized by the train rows' mean and standard deviation; a column
        that is constant over the train rows is only shifted, so it is 0 there.

    Raises:
        DatasetError: The file is missing or empty, a cell is not a finite float32 number, rows have different
            lengths, a label is missing, or there are fewer than two classes.
    """
    checked = _existing_file("csv", path, "a .csv file: numeric columns, the class in the last one")
    rows = _read_rows(checked)
    names = _header(checked, rows)
    if names:
        rows = rows[1:]
    features, words = _parse_rows(checked, rows, names)
    classes = _sorted_classes(words)
    _check_classes(checked, classes)
    number_of = {word: number for number, group in enumerate(classes) for word in group}
    labels = torch.tensor([number_of[word] for word in words], dtype=torch.int64)
    train, test = _split(checked, labels)
    scaled = torch.from_numpy(_standardized(features, train.numpy()).astype(numpy.float32))
    return _dataset("csv", scaled, labels, train, test, len(classes))


def libsvm_table(path: Path | None = None) -> Dataset:
    """Sparse rows as dense vectors, values unchanged; --data is a LIBSVM (svmlight) text file.

    Returns:
        Inputs of shape (n, c), where c is the highest feature index in the file (one more if the
        indices start at 0); labels sorted by value and numbered from 0.

    Raises:
        DatasetError: The file is missing or empty, an item is not `index:value`, a value is not a finite float32
            number, there are more than 2**30 dense values, or fewer than two classes.
    """
    checked = _existing_file("libsvm", path, "a LIBSVM text file: one `label index:value ...` line per example")
    inputs, targets = _read_svmlight(checked)
    values, numbers = numpy.unique(targets, return_inverse=True)
    _check_classes(checked, [[f"{value:g}"] for value in values])
    labels = torch.from_numpy(numbers.astype(numpy.int64))
    train, test = _split(checked, labels)
    return _dataset("libsvm", torch.from_numpy(inputs), labels, train, test, len(values))


def _existing_file(name: str, path: Path | None, wanted: str) -> Path:
    if path is None:
        raise DataOptionError(f"{name}: needs ", Named("data"), f", {wanted}")
    if not path.is_file():
        raise DataOptionError(
            f"{name}: ", Named("data", str(path), quoted=True), f" is not a file; it must be {wanted}"
        )
    return path


def _dataset(name: str, inputs: Tensor, labels: Tensor, train: Tensor, test: Tensor, n_classes: int) -> Dataset:
    return Dataset(
        name=name,
        train_inputs=inputs[train],
        train_labels=labels[train],
        test_inputs=inputs[test],
        test_labels=labels[test],
        n_classes=n_classes,
    )


def _shown(word: str) -> str:
    """Return a word from a file for an error message, shortened: a binary file may be one long word."""
    return repr(word) if len(word) <= 40 else repr(word[:40]) + "..."


def _split(path: Path, labels: Tensor) -> tuple[Tensor, Tensor]:
    try:
        return stratified_split(labels)
    except DatasetError as error:
        raise DatasetError(f"{path}: {error}") from None


def _check_classes(path: Path, classes: Sequence[Sequence[str]]) -> None:
    if len(classes) < 2:
        raise DatasetError(f"{path}: every label is {classes[0][0]!r}, must be of two classes at least")


# --- comma-separated values -------------------------------------------------------------------------


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the non-blank rows, all of one length, with their line numbers from 1."""
    rows: list[tuple[int, list[str]]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append((reader.line_num, [cell.strip() for cell in cells]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not comma-separated UTF-8 text ({error})") from error
    if not rows:
        raise DatasetError(f"{path}: empty, must hold rows of numbers with the class in the last column")
    n_cells = len(rows[0][1])
    if n_cells < 2:
        raise DatasetError(
            f"{path}: row {rows[0][0]} has one cell, must have a number and a label; are the commas missing?"
        )
    for row, cells in rows:
        if len(cells) != n_cells:
            raise DatasetError(f"{path}: row {row} has {len(cells)} cells, must have {n_cells} as row {rows[0][0]} has")
    return rows


def _header(path: Path, rows: Sequence[tuple[int, list[str]]]) -> list[str]:
    """Return the column names, or none if the first row has a number."""
    top_row = rows[0][1]
    if any(_number(cell) is not None for cell in top_row[:-1]):
        return []
    if len(rows) == 1:
        raise DatasetError(f"{path}: empty below its header, must hold rows of numbers with the class last")
    return top_row


def _number(cell: str) -> float | None:
    if "_" in cell:  # float() takes 1_000 for 1000; in a data file it is more likely a name
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _parse_rows(
    path: Path, rows: Sequence[tuple[int, list[str]]], names: Sequence[str]
) -> tuple[NDArray[numpy.float64], list[str]]:
    """Return the features (n, c) float64, finite and in float32's range, and the label words."""
    features = numpy.empty((len(rows), len(rows[0][1]) - 1), dtype=numpy.float64)
    for place, (row, cells) in enumerate(rows):
        for column, cell in enumerate(cells[:-1]):
            value = _number(cell)
            if value is None or not abs(value) <= FLOAT32_MAX:
                label = f"column {column + 1}" + (f" ({names[column]})" if names else "")
                raise DatasetError(f"{path}: row {row}, {label}: {_shown(cell)} must be a finite float32 number")
            features[place, column] = value
        if not cells[-1]:
            raise DatasetError(f"{path}: row {row}, column {len(cells)}: the label is empty, must be a class")
    return features, [cells[-1] for _, cells in rows]


def _sorted_classes(words: Sequence[str]) -> list[list[str]]:
    """Return the classes in order, each with its spellings. 1 and +1 are one class if all labels are integers."""
    distinct = sorted(set(words))
    if not all(INTEGER_PATTERN.fullmatch(word) for word in distinct):
        return [[word] for word in distinct]
    spellings: dict[int, list[str]] = {}
    for word in sorted(distinct, key=int):
        spellings.setdefault(int(word), []).append(word)
    return list(spellings.values())


def _standardized(features: NDArray[numpy.float64], train: NDArray[numpy.int64]) -> NDArray[numpy.float64]:
    known = features[train]
    low, high = known.min(axis=0), known.max(axis=0)
    # The mean of equal numbers can miss them by one rounding, which a tiny std would blow up to 1.
    constant = low == high
    mean = numpy.where(constant, low, known.mean(axis=0))
    std = numpy.where(constant, 1.0, known.std(axis=0))
    scaled: NDArray[numpy.float64] = (features - mean) / std
    return scaled


# --- LIBSVM -----------------------------------------------------------------------------------------


def _read_svmlight(path: Path) -> tuple[NDArray[numpy.float32], NDArray[numpy.float64]]:
    """Return dense features (n, c) float32, finite, and the labels (n,) float64 as in the file."""
    # scikit-learn takes a second to import, which listing the data sets should not need.
    from sklearn.datasets import load_svmlight_file

    try:
        with path.open("rb") as stream:  # not the path: one ending in .gz would be unpacked without a bound
            sparse, targets = load_svmlight_file(stream, dtype=numpy.float32)
    except (ValueError, OverflowError) as error:
        raise DatasetError(f"{path}: {_bad_value(path) or error}") from error
    if not (numpy.isfinite(sparse.data).all() and numpy.isfinite(targets).all()):
        raise DatasetError(f"{path}: {_bad_value(path) or 'a value is not finite'}")
    n_rows, n_columns = sparse.shape
    if n_rows == 0 or sparse.nnz == 0:
        raise DatasetError(
            f"{path}: empty: holds {n_rows} examples with {sparse.nnz} values, must hold at least one; "
            "lines are `label index:value ...`"
        )
    if n_rows * n_columns > MAX_DENSE_ELEMENTS:
        raise DatasetError(
            f"{path}: {n_rows:,} examples with feature indices up to {n_columns:,} make "
            f"{n_rows * n_columns:,} dense values, must be at most {MAX_DENSE_ELEMENTS:,}; "
            "is one index mistyped?"
        )
    return sparse.toarray(), targets


def _bad_value(path: Path) -> str | None:
    """Return a message about the first item that is not valid LIBSVM, or None."""
    with path.open("rb") as stream:
        for line, text in enumerate(stream, start=1):
            words = text.split(b"#", 1)[0].decode("utf-8", errors="replace").split()
            if not words:
                continue
            if not _is_finite(words[0]):
                return f"line {line}: label {_shown(words[0])} must be a finite number"
            last = -1
            for word in words[1:]:
                index, _, value = word.partition(":")
                if index == "qid":
                    continue
                if not (index.isdecimal() and _is_finite(value)):
                    return f"line {line}: item {_shown(word)} must be index:value with a finite float32 value"
                if int(index) <= last:
                    return f"line {line}: item {_shown(word)} must have an index above {last}, the one before it"
                last = int(index)
    return None


def _is_finite(cell: str) -> bool:
    value = _number(cell)
    return value is not None and abs(value) <= FLOAT32_MAX
