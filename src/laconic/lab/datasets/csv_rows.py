"""The rows of a file of separated values, as texts, with the lines at which they begin."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from laconic.errors import DatasetError
from laconic.lab.datasets.numbers import number_of, with_decimal_point
from laconic.lab.datasets.text_file import numbered_lines

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "spaces"}
MAX_CELLS = 1 << 30  # as many as a dense table may have values
_STATED_SEPARATOR = re.compile(r"sep=([^\w\s]|\t)\s*", re.IGNORECASE)  # Excel's own mark, in the first line
_SAMPLE = 50  # lines by which the separator is found


class Row(NamedTuple):
    """One example, or the header."""

    line: int
    cells: list[str]
    """Without blanks around them."""


class Rows(NamedTuple):
    """All rows of a file, of one length, the header still among them."""

    path: Path
    separator: str
    rows: list[Row]

    @property
    def width(self) -> int:
        """The number of cells of a row."""
        return len(self.rows[0].cells)


def read_rows(path: Path, encoding: str | None) -> Rows:
    """Read a file. Blank lines and lines that begin with # are left out, and so is a last column without any text.

    Raises:
        DatasetError: The file is empty, a quote is never closed, or rows have different lengths.
    """
    lines = ((number, line) for number, line in numbered_lines(path, encoding))
    sample = list(itertools.islice(lines, _SAMPLE))
    stated = _STATED_SEPARATOR.fullmatch(sample[0][1]) if sample else None
    if stated is not None:
        del sample[0]
    texts = [line for _, line in sample if line.strip() and not line.lstrip().startswith("#")]
    separator = stated[1] if stated else _separator(texts, may_break_off=len(sample) == _SAMPLE)
    rows = list(_parsed(path, itertools.chain(sample, lines), separator))
    if not rows:
        raise DatasetError(f"{path}: empty, must hold rows of numbers with the class in the last column")
    _name_row_names(rows)
    _remove_trailing_separators(rows)
    widths = Counter(len(cells) for _, cells in rows)
    width = max(widths, key=widths.__getitem__)
    usual = next(row.line for row in rows if len(row.cells) == width)
    if width < 2:
        raise DatasetError(
            f"{path}: line {usual} has one cell, must have a number and a label; separate them by commas, semicolons "
            "or tabs"
        )
    marks = SEPARATORS.get(separator, repr(separator))
    for line, cells in rows:
        if len(cells) != width:
            raise DatasetError(
                f"{path}: line {line} has {len(cells)} cells, must have {width} as line {usual} has, separated by "
                f"{marks}; mend the line, put texts with separators in them into quotes, or begin a comment with #"
            )
    return Rows(path, separator, rows)


def _parsed(path: Path, lines: Iterator[tuple[int, str]], separator: str) -> Iterator[Row]:
    """Yield the rows that are not blank. A quoted newline belongs to its cell."""
    reading = _Lines(lines, separator)
    reader = csv.reader(reading, delimiter=separator, strict=True, skipinitialspace=True)
    n_cells = 0
    while True:
        reading.starts_row = True
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DatasetError(
                f"{path}: line {reading.row_line}: a quote that opens here is not closed, or text follows the closing "
                f"one ({error}); write a quote within quotes twice"
            ) from None
        n_cells += len(cells)
        if n_cells > MAX_CELLS:
            raise DatasetError(f"{path}: line {reading.row_line}: more than {MAX_CELLS:,} cells, which is the bound")
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield Row(reading.row_line, stripped)


class _Lines:
    """The lines for csv.reader, without comments, and the number of the line at which the present row begins."""

    def __init__(self, lines: Iterator[tuple[int, str]], separator: str) -> None:
        self._lines = lines
        self._strips = separator == " "
        self.starts_row = True
        self.row_line = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, line = next(self._lines)
        while self.starts_row and line.lstrip().startswith("#"):
            number, line = next(self._lines)
        if self.starts_row:
            self.row_line = number
        self.starts_row = False
        return line.strip() if self._strips else line


def _separator(sample: Sequence[str], *, may_break_off: bool) -> str:
    """Return the separator by which these lines have equally many cells, and the most numbers among them."""
    best, best_share = ",", -1.0
    for separator in SEPARATORS:
        lines = [line.strip() if separator == " " else line for line in sample]
        try:
            rows = [row for row in csv.reader(lines, delimiter=separator, skipinitialspace=True) if row]
        except csv.Error:
            continue
        if may_break_off and len(rows) > 2:
            rows.pop()  # it may end within quotes
        widths = {len(row) for row in rows[1:]} or {len(row) for row in rows}
        if not rows or len(widths) > 1 or max(widths) < 2:
            continue
        cells = [cell.strip() for row in rows for cell in row]
        numbers = sum(number_of(c if separator == "," else with_decimal_point(c)) is not None for c in cells)
        if numbers / len(cells) > best_share:
            best, best_share = separator, numbers / len(cells)
    return best


def _name_row_names(rows: list[Row]) -> None:
    """Give the header of R's write.table, which has no cell for the rows' names, an empty one."""
    top, *below = rows
    one_more = len(top.cells) + 1
    if (
        below
        and all(len(row.cells) == one_more for row in below)
        and all(cell and number_of(cell) is None for cell in top.cells)
        and any(row.cells[-1] for row in below)
    ):
        top.cells.insert(0, "")


def _remove_trailing_separators(rows: list[Row]) -> None:
    """Cut a last column that has no text in any row; the header may lack it."""
    below = rows[1:] or rows
    width = len(below[0].cells)
    while width > 1 and all(len(row.cells) == width and not row.cells[-1] for row in below):
        top = rows[0].cells
        if len(top) == width and top[-1]:
            return
        for row in rows:
            if len(row.cells) == width:
                row.cells.pop()
        width -= 1
