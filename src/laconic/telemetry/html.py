"""Small tables for a notebook: text and borders in the page's own colors, no script, everything escaped."""

from collections.abc import Sequence
from html import escape

_CELL = "text-align:{};padding:0.1em 0.7em;border:none;border-bottom:1px solid currentColor;background:none"
_NOTE = "margin:0.2em 0"


def html_table(rows: Sequence[Sequence[str]], *, title: str = "", header: bool = True) -> str:
    """Return an HTML table.

    Args:
        rows: The text of the cells. The first cell of each row is its name, at the left; the others stand at the right.
        title: One line above the table.
        header: Whether the first row holds the columns' names.
    """
    lines = [_row(row, is_header=header and place == 0) for place, row in enumerate(rows)]
    caption = f"<caption style='text-align:left;caption-side:top'>{escape(title)}</caption>" if title else ""
    style = "border-collapse:collapse;color:inherit;background:none"
    return f"<table style='{style}'>{caption}{''.join(lines)}</table>"


def html_lines(lines: Sequence[str]) -> str:
    """Return lines of text as HTML paragraphs."""
    return "".join(f"<p style='{_NOTE}'>{escape(line)}</p>" for line in lines)


def _row(cells: Sequence[str], *, is_header: bool) -> str:
    text = ""
    for place, cell in enumerate(cells):
        tag = "td" if place and not is_header else "th"
        text += f"<{tag} style='{_CELL.format('right' if place else 'left')}'>{escape(cell)}</{tag}>"
    return f"<tr>{text}</tr>"
