"""A published table and the measured figures, on the terminal and as a file."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from laconic.lab.processes.pool import Figures
from laconic.lab.provenance import machine, versions
from laconic.report.fitting import FittingTable
from laconic.reproduce.table import PublishedTable, Request, Sheet, SideBySide


def side_by_side(table: PublishedTable, comparison: SideBySide) -> Group:
    """Return the sheets and notes of a comparison. Columns that do not fit the terminal are dropped and named."""
    parts: list[RenderableType] = [Text(table.source, style="bold"), Text()]
    for sheet in comparison.sheets:
        parts += [sheet_table(sheet), Text()]
    parts += [
        Text(f"diverged: {which}. Its figures are not those of a trained model.") for which in comparison.diverged
    ]
    parts += [Text(note) for note in comparison.notes]
    return Group(*parts)


def sheet_table(sheet: Sheet) -> FittingTable:
    """Return a sheet as a table that drops columns which do not fit the terminal, and names them."""
    table = FittingTable(sheet.title, remedy="a wider terminal or --out FILE shows them")
    for place, column in enumerate(sheet.columns):
        if place:
            table.add_column(column, justify="right", importance=-place)
        else:
            table.add_column(column)
    for row in sheet.rows:
        table.add_row(*row)
    return table


def result_of(
    table: PublishedTable, request: Request, found: Sequence[Figures], comparison: SideBySide
) -> dict[str, Any]:
    """Return the result: command, date, versions, machine, settings, all measured and all published figures."""
    return {
        **_of_run(table, request, found),
        "tables": [{"title": sheet.title, "columns": sheet.columns, "rows": sheet.rows} for sheet in comparison.sheets],
        "notes": comparison.notes,
        "diverged": comparison.diverged,
    }


def _of_run(table: PublishedTable, request: Request, found: Sequence[Figures]) -> dict[str, Any]:
    return {
        "table": table.name,
        "source": table.source,
        "command": ["laconic", *sys.argv[1:]],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "machine": machine(),
        "settings": {"seeds": request.seeds, "methods": request.methods, **table.settings()},
        "printed": table.printed,
        "found": found,
    }
