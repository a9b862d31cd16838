"""What the columns of a table are: its header, the label, row numbers and the features."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from laconic.errors import Named
from laconic.hyperparameters import near_misses
from laconic.lab.datasets.csv_rows import Row, Rows
from laconic.lab.datasets.dataset import DataOptionError
from laconic.lab.datasets.numbers import class_of, is_missing, number_of, with_decimal_point
from laconic.statements import warn

_LABEL_NAMES = frozenset(["class", "classes", "label", "labels", "target", "targets", "species", "category", "y"])
_UNNAMED = ("", "unnamed: 0")  # the header of pandas' and R's row numbers; pandas' own name when it is read again
_MIN_COUNTED = 5  # rows that count 0, 1, 2, ... before this looks like row numbers


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column is what, by index from 0."""

    names: list[str]
    """Empty without a header."""
    width: int
    label: int
    features: list[int]

    def named(self, column: int) -> str:
        """Return how a message names a column."""
        return f"column {column + 1}" + (f" ({self.names[column]})" if self.names and self.names[column] else "")


def find_columns(
    table: Rows, *, header: str, label_column: str, drop_columns: str | None
) -> tuple[Columns, Sequence[Row]]:
    """Return what the columns are, and the rows without the header.

    Args:
        table: All rows.
        header: "yes", "no", or "auto" to tell by the first row.
        label_column: "first", "last", a name in the header or a number from 1.
        drop_columns: Names or numbers with commas between them, "none", or None to leave out what numbers the rows.

    Raises:
        DataOptionError: A column is not there, or the first row may be a header or an example.

    Warns:
        UserWarning: what was told from the rows alone.
    """
    top = table.rows[0]
    is_name = label_column not in ("first", "last") and not label_column.isdecimal()
    has_names = header == "yes" or (header == "auto" and (is_name or label_column in top.cells))
    label = _column(table, "label_column", label_column, top.cells if has_names else [])
    if has_names or (header == "auto" and _is_header(table, label)):
        names, rows = top.cells, table.rows[1:]
        if not rows:
            raise DataOptionError(
                f"{table.path}: empty below its header in line {top.line}, must hold rows of numbers and a class"
            )
    else:
        names, rows = [], table.rows
    if names:
        label = _column(table, "label_column", label_column, names)
        _say_equal_names(table, names)
    dropped = _dropped(table, drop_columns, names, rows, label)
    if label in dropped:
        raise DataOptionError(
            f"{table.path}: ", Named("drop_columns", drop_columns), f" leaves out column {label + 1}, which is the "
            "label; name another with ", Named("label_column"),
        )  # fmt: skip
    features = [column for column in range(table.width) if column != label and column not in dropped]
    if not features:
        raise DataOptionError(f"{table.path}: no column is left beside the label; leave out fewer")
    return Columns(names=names, width=table.width, label=label, features=features), rows


def _column(table: Rows, option: str, text: str, names: Sequence[str]) -> int:
    """Return the column that a text means: first, last, a name, or a number from 1."""
    width, path = table.width, table.path
    if names.count(text) > 1:
        numbers = " and ".join(str(i + 1) for i, name in enumerate(names) if name == text)
        raise DataOptionError(
            f"{path}: ", Named(option, text, quoted=True), f" is the name of columns {numbers}; give the number of one"
        )
    if text in names:
        return names.index(text)
    if text in ("first", "last"):
        return 0 if text == "first" else width - 1
    if text.isascii() and text.isdecimal():
        if 1 <= int(text) <= width:
            return int(text) - 1
        raise DataOptionError(f"{path}: ", Named(option, text), f" must be in 1 .. {width}, the number of columns")
    known = f"one of {', '.join(names)}" if names else "a number from 1, since the file has no header"
    near = near_misses(text, [name for name in names if name])
    raise DataOptionError(f"{path}: no column is named by ", Named(option, text, quoted=True), f"; give {known}{near}")


def _is_header(table: Rows, label: int) -> bool:
    """Return whether the first row is a header. Where it can only be guessed, say so or ask."""
    top, *below = table.rows
    name = top.cells[label]
    features = [column for column in range(table.width) if column != label]
    texts = [column for column in features if _is_text(table, top.cells[column])]
    classes = Counter(class_of(row.cells[label]) for row in below)
    is_label = class_of(name) in classes
    if texts and not any(_is_number(table, top.cells[column]) for column in features):
        if is_label:
            raise _doubtful(table, f"has texts in place of numbers, but {name!r} is the label of other rows too")
        return True
    if texts:  # of a bad cell in an example, the reader of numbers complains
        is_name = any(all(not _is_text(table, row.cells[column]) for row in below) for column in texts)
        return is_name and not is_label and _say_header(table, "has texts where the others have numbers")
    if _is_of_another_type(table, features):
        if is_label and not _numbers_columns(top):
            raise _doubtful(table, "has whole numbers where all other rows have decimals, so it may be a header")
        return _say_header(table, "has whole numbers where all other rows have decimals")
    if is_label or is_missing(name) or not below:
        if below and table.width > 2 and _numbers_columns(top):
            _say(table, f"line {top.line} could be a header that numbers the columns; it is read as an example, and "
                 "--header yes reads it as a header")  # fmt: skip
        return False
    if _numbers_columns(top):
        return _say_header(table, "numbers the columns")
    is_text = isinstance(class_of(name), str)
    if name.lower() in _LABEL_NAMES or (is_text and not any(isinstance(known, str) for known in classes)):
        return _say_header(table, f"has a name in place of a label: {name!r}")
    if min(classes.values()) > 1:
        raise _doubtful(table, f"is the only one with the label {name!r}, so it may be a header of numbers")
    return False


def _is_number(table: Rows, cell: str) -> bool:
    return number_of(cell if table.separator == "," else with_decimal_point(cell)) is not None


def _is_text(table: Rows, cell: str) -> bool:
    return not _is_number(table, cell) and not is_missing(cell)


def _numbers_columns(row: Row) -> bool:
    return any(row.cells == [str(i + start) for i in range(len(row.cells))] for start in (0, 1))


def _is_of_another_type(table: Rows, features: Sequence[int]) -> bool:
    """Return whether all features are whole numbers in the first row, and decimals in all others."""
    top, *below = table.rows
    are_integers = all(top.cells[column].lstrip("+-").isdecimal() for column in features)
    marks = re.compile(r"[.,eE]")
    return (
        are_integers and len(below) > 3 and all(marks.search(row.cells[column]) for row in below for column in features)
    )


def _doubtful(table: Rows, doubt: str) -> DataOptionError:
    return DataOptionError(
        f"{table.path}: line {table.rows[0].line} {doubt}; say whether it is a header: ", Named("header", "yes"),
        " or ", Named("header", "no"),
    )  # fmt: skip


def _say_header(table: Rows, reason: str) -> bool:
    """Warn that the first row is read as a header, and return True."""
    _say(table, f"line {table.rows[0].line} {reason}; it is read as a header, and --header no reads it as an example")
    return True


def _say(table: Rows, text: str) -> None:
    warn(f"{table.path}: {text}")


def _say_equal_names(table: Rows, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if name and count > 1:
            numbers = ", ".join(str(i + 1) for i, other in enumerate(names) if other == name)
            _say(table, f"columns {numbers} have one name, {name!r}; all are read")


def _dropped(table: Rows, wanted: str | None, names: Sequence[str], rows: Sequence[Row], label: int) -> set[int]:
    """Return the columns that are left out: as asked, or the rows' numbers or names in a column without a name."""
    if wanted == "none":
        return set()
    if wanted is not None:
        return {_column(table, "drop_columns", text.strip(), names) for text in wanted.split(",")}
    if label == 0 or table.width < 3:
        return set()
    cells = [row.cells[0] for row in rows]
    integers = [int(cell) for cell in cells if cell.isascii() and cell.isdecimal() and len(cell) < 19]
    is_index = len(integers) == len(cells) and len(set(integers)) == len(integers)
    if names and names[0].lower() in _UNNAMED:
        if is_index or not any(_is_number(table, cell) for cell in cells):
            _say(table, "column 1 has no name and holds the rows' numbers or names; it is left out, and --drop-columns "
                 "none reads it")  # fmt: skip
            return {0}
        _say(table, "column 1 has no name; it is read as a feature")
    elif (
        is_index and len(integers) >= _MIN_COUNTED and integers == list(range(integers[0], integers[0] + len(integers)))
    ):
        _say(table, "column 1 counts the rows and is read as a feature; if it only numbers them, --drop-columns 1 "
             "leaves it out, and --drop-columns none ends this warning")  # fmt: skip
    return set()
