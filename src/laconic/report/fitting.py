"""Tables that fit the width at hand: whole columns are dropped, and no figure is ever cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE_HEAD, Box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from laconic.report.visible import visible, visible_lines

_ASCII_HEAD = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)
_GAP = 1


@dataclass(frozen=True)
class _Column:
    name: str
    justify: Literal["left", "right"]
    importance: float
    wraps: bool
    cells: list[Text] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Columns of the terminal that the full column takes."""
        return max(cell_len(self.name), *(_widest(cell.plain.splitlines()) for cell in self.cells), 1)

    @property
    def minimum(self) -> int:
        """Columns of the terminal below which a figure, or a word, would be cut. A header may take several lines."""
        parts = [cell.plain.split() if self.wraps else cell.plain.splitlines() for cell in self.cells]
        return max(_widest(self.name.split()), *map(_widest, parts), 1)


class FittingTable:
    """A table that drops the columns of least importance where it is too wide, and says in one line which.

    Cells are text, never markup. Where not even the columns that are always shown fit, each row is printed as lines of
    the form `column  value`. On a terminal that is no UTF-8 the table is drawn in ASCII.
    """

    def __init__(self, title: str = "", *, caption: str = "", remedy: str = "a wider terminal shows all") -> None:
        """Make an empty table.

        Args:
            title: One line above the table.
            caption: How to read it, below.
            remedy: How to see the columns that were dropped, such as "a wider terminal or --json FILE shows them".
        """
        self.title = visible(title)
        self.caption = visible(caption)
        self.remedy = remedy
        self._columns: list[_Column] = []
        self._styles: list[str | None] = []

    def add_column(
        self,
        name: str,
        *,
        justify: Literal["left", "right"] = "left",
        importance: float = float("inf"),
        wraps: bool = False,
    ) -> None:
        """Add a column.

        Args:
            name: The header.
            justify: Figures stand at the right, text at the left.
            importance: The columns of the lowest importance are dropped first, and of equal ones the one at the right.
                A column without it is never dropped.
            wraps: Whether its cells are text that may take several lines, broken between words.
        """
        self._columns.append(_Column(visible(name), justify, importance, wraps))

    def add_row(self, *cells: str | Text, style: str | None = None) -> None:
        """Add a row. The last cells may be left out."""
        missing = [""] * (len(self._columns) - len(cells))
        for column, cell in zip(self._columns, [*cells, *missing], strict=True):
            column.cells.append(Text(visible_lines(cell)) if isinstance(cell, str) else cell)
        self._styles.append(style)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table, and the line on what was dropped."""
        width = options.max_width
        if self.title:
            yield Text(self.title, style="italic")
        shown = self._fitting(width)
        if _total(column.minimum for column in shown) <= width:
            yield self._table(shown, width, ascii_only=options.ascii_only)
        else:
            yield from self._as_lines(shown)
        dropped = [column.name for column in self._columns if column not in shown]
        if self.caption:
            yield Text(self.caption, style="dim")
        if dropped:
            names = ", ".join(dict.fromkeys(dropped))
            yield Text(f"not shown at {width} columns: {names}; {self.remedy}", style="dim")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the minimum and maximum width."""
        widths = [column.width for column in self._columns]
        return Measurement(min(options.max_width, max(widths, default=1)), min(options.max_width, _total(widths)))

    def _fitting(self, width: int) -> list[_Column]:
        """Return the columns that are shown, in their order."""
        shown = list(self._columns)
        while _total(column.minimum for column in shown) > width:
            weakest = min(reversed(shown), key=lambda column: column.importance, default=None)
            if weakest is None or weakest.importance == float("inf"):
                break
            shown = [column for column in shown if column is not weakest]
        return shown

    def _table(self, shown: Sequence[_Column], width: int, *, ascii_only: bool) -> RenderableType:
        box = _ASCII_HEAD if ascii_only else SIMPLE_HEAD
        table = Table(box=box, padding=0, show_edge=False)
        for column, columns_wide in zip(shown, _widths(shown, width), strict=True):
            table.add_column(Text(column.name), justify=column.justify, width=columns_wide, overflow="fold")
        for place, style in enumerate(self._styles):
            table.add_row(*(column.cells[place] for column in shown), style=style)
        return table

    def _as_lines(self, shown: Sequence[_Column]) -> Iterator[Text]:
        """Yield each row as one line a column, with an empty line between rows."""
        names = max(cell_len(column.name) for column in shown)
        for place, style in enumerate(self._styles):
            if place:
                yield Text()
            for column in shown:
                name = column.name + " " * (names - cell_len(column.name))
                yield Text.assemble((name, "bold"), " ", column.cells[place], style=style or "", overflow="fold")


def _widest(lines: Sequence[str]) -> int:
    return max(map(cell_len, lines), default=0)


def _total(widths: "Sequence[int] | Iterator[int]") -> int:
    """Return the width of a table with columns of these widths."""
    each = list(widths)
    return sum(each) + _GAP * max(0, len(each) - 1)


def _widths(shown: Sequence[_Column], width: int) -> list[int]:
    """Return the width of each column. Those that wrap share what the others do not take."""
    widths = [column.width for column in shown]
    while _total(widths) > width:
        wider = [
            (columns_wide, place)
            for place, (columns_wide, column) in enumerate(zip(widths, shown, strict=True))
            if columns_wide > column.minimum
        ]
        if not wider:
            break
        widths[max(wider)[1]] -= 1
    return widths
