"""The files that show a comparison: `report.html`, and beside it the curves, the table and all figures."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from laconic.lab.atomic import utf8, write_bytes
from laconic.lab.json_text import json_text
from laconic.report.comparison_page.contents import Contents, contents_of
from laconic.report.comparison_page.folder import read_comparison
from laconic.report.comparison_page.page import page_of
from laconic.report.comparison_page.pictures import draw_comparison
from laconic.report.comparison_page.series import Result
from laconic.report.estimate import Estimate

PAGE, TABLE, FIGURES = "report.html", "table.csv", "report.json"
PICTURES = ("curves.png", "curves.svg")
_ESTIMATES = ("final", "rounds", "total", "up", "down", "total_up", "total_down")
_NAMES = {
    "final": "metric_at_end", "rounds": "rounds_to_target", "total": "bytes_to_target", "up": "up_bytes_to_target",
    "down": "down_bytes_to_target", "total_up": "up_bytes_of_run", "total_down": "down_bytes_of_run",
}  # fmt: skip


def write_report(folder: Path, out: Path | None = None) -> list[Path]:
    """Write the page of the comparison in `folder`, with a picture, a table and all figures beside it.

    Args:
        folder: What `laconic compare` wrote, or any folder with runs in it or below it.
        out: The folder to write into, which is made if it is missing; None for `folder`.

    Returns:
        The files, the page first.

    Raises:
        OptionError: There is no run in the folder.
        ValueError: `comparison.json` is damaged.
        OSError: A file cannot be written. The error names it.
    """
    contents = contents_of(read_comparison(folder))
    into = folder if out is None else out
    into.mkdir(parents=True, exist_ok=True)
    page, data = page_of(contents)
    written = {PAGE: utf8(page), TABLE: utf8(table_text(contents))}
    written[FIGURES] = utf8(json_text({"results": [_result(*each) for each in _named(contents)], **data}, indent=None))
    for name in PICTURES:
        written[name] = draw_comparison(
            contents.title, contents.series, contents.names, contents.metric, Path(name).suffix
        )
    for name, content in written.items():
        write_bytes(into / name, content)
    return [into / name for name in written]


def table_text(contents: Contents) -> str:
    """Return the table as CSV: a line a method, with mean and standard deviation over seeds in two columns each."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    rows = [_result(*each) for each in _named(contents)]
    writer.writerow(rows[0] if rows else [])
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    return text.getvalue()


def _named(contents: Contents) -> Sequence[tuple[str, Result, float | None]]:
    return [(name, one, contents.target) for name, one in zip(contents.names, contents.results, strict=True)]


def _result(name: str, result: Result, target: float | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "method": name, "algorithm": result.series.algorithm, "seeds": result.seeds, "target": target,
        "seeds_that_reach_it": result.reached,
    }  # fmt: skip
    for field in _ESTIMATES:
        of: Estimate | None = getattr(result, field)
        found: Mapping[str, Any] = {} if of is None else asdict(of)
        row |= {f"{_NAMES[field]}_{part}": found.get(part) for part in ("mean", "deviation")}
    return row
