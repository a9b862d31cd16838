"""Items of the papers as text: what is printed beside what was measured, and the list of all."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from laconic.report.fitting import FittingTable
from laconic.report.published import sheet_table
from laconic.reproduce.grid import Try
from laconic.reproduce.items import Item
from laconic.reproduce.judging import Line, verdict_of
from laconic.reproduce.rules import Measured, verdict_of_all
from laconic.reproduce.table import Sheet

COLUMNS = ("what", "printed", "measured", "lowest", "highest", "rule", "verdict")


def cells_of(line: Line) -> tuple[str, ...]:
    """Return the texts of a line, by COLUMNS. Seeds that agree have one text."""
    figure = line.figure
    marked = "> " if figure is not None and figure.is_bound else ""
    numbers = ("-", "", "") if figure is None else (f"{marked}{number_text(figure.mean)}", *_ends(figure))
    verdict = "" if not line.rule else "not run yet" if line.verdict is None else line.verdict.value
    return (line.what, line.printed, *numbers, line.rule, verdict)


def _ends(figure: Measured) -> tuple[str, str]:
    if len(figure.by_seed) == 1:
        return "", ""
    return number_text(figure.lowest), number_text(figure.highest)


def number_text(value: float) -> str:
    """Return a number with up to five digits that say something: "328.22", "7.8675e+11"."""
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e7 else f"{value:.5g}"


def printed_beside_measured(item: Item, lines: Sequence[Line]) -> Group:
    """Return an item's lines as a table, below its name, and its notes."""
    parts: list[RenderableType] = [Text(f"{item.name}: paper {item.paper}, {item.prints}", style="bold"), Text()]
    sheet = Sheet(title=item.title, columns=COLUMNS, rows=tuple(map(cells_of, lines)))
    parts += [sheet_table(sheet), Text(f"scaled: {item.scaled}")]
    parts += [Text(note) for note in item.notes]
    if item.tried:
        parts.append(Text(f"tried: {' '.join(item.tried)}"))
    return Group(*parts, Text())


def list_of(items: Sequence[Item], verdicts: Mapping[str, str]) -> Group:
    """Return the list of items, two lines for each: its name, kind, minutes and verdict; what is printed."""
    width = max(len(item.name) for item in items)
    parts = [Text(f"{'item':{width}}  {'kind':8}  minutes  verdict")]
    for item in items:
        parts.append(
            Text.assemble(
                (f"{item.name:{width}}", "bold"),
                f"  {item.kind:8}  {_minutes(item):>7}  {verdicts.get(item.name, '')}",
            )
        )
        parts.append(Text(f"  {item.prints}: {item.title}", style="dim"))
    return Group(*parts)


def search_table(tries: Sequence[tuple[Try, float]], best: Mapping[tuple[str, str], float]) -> FittingTable:
    """Return what a search of learning rates has reached, with the best of each row marked."""
    rows = tuple(
        (
            f"{one.setting}: {one.row}", f"{one.learning_rate:.3g}", number_text(value),
            "best" if best[one.setting, one.row] == one.factor else "",
        )
        for one, value in sorted(tries, key=lambda pair: (pair[0].setting, pair[0].row, pair[0].factor))
    )  # fmt: skip
    return sheet_table(Sheet(title="Search of learning rates", columns=("row", "rate", "reached", ""), rows=rows))


def verdict_text(item: Item, lines: Sequence[Line]) -> str:
    """Return an item's verdict, or why it has none."""
    if item.why:
        return "not here"
    if item.kind == "drawn":
        return "drawn"
    if not any(line.rule for line in lines):
        return "shown, not judged" if lines and all(line.figure for line in lines) else "not run yet"
    verdict = verdict_of(lines)
    if verdict is not None:
        return verdict.value
    so_far = [line.verdict for line in lines if line.verdict is not None]
    return f"{verdict_of_all(so_far).value} as far as it has run" if so_far else "not run yet"


def _minutes(item: Item) -> str:
    if item.kind in ("drawn", "not here"):
        return ""
    return f"{item.minutes:g}" if item.minutes >= 0.1 else "< 0.1"


def data_of(item: Item, lines: Sequence[Line]) -> dict[str, Any]:
    """Return an item's lines for JSON."""
    return {
        "item": item.name, "paper": item.paper, "prints": item.prints, "title": item.title, "kind": item.kind,
        "lines": [_line_data(line) for line in lines],
    }  # fmt: skip


def _line_data(line: Line) -> dict[str, Any]:
    figure = line.figure
    measured = None if figure is None else {
        "mean": figure.mean, "lowest": figure.lowest, "highest": figure.highest, "by_seed": figure.by_seed,
        "is_bound": figure.is_bound,
    }  # fmt: skip
    return {
        "what": line.what, "printed": line.printed, "measured": measured, "rule": line.rule, "note": line.note,
        "verdict": None if line.verdict is None else line.verdict.value,
    }  # fmt: skip
