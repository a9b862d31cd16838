"""Options, checks, tables and result files of all benches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from laconic.hyperparameters import near_misses

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement

JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="The file to write all figures to, as JSON.")
]
Repeats = Annotated[int, typer.Option("--repeats", help="The number of times that each case is measured.")]
Algorithms = Annotated[
    str,
    typer.Option(
        "--algorithms",
        metavar="NAMES",
        help="The methods to measure: names that `laconic list` prints, with commas between them.",
    ),
]

Listen = Callable[[str], None]


def measured(console: Console, bench: Callable[[Listen], Iterable[Measurement]]) -> list[Measurement]:
    """Return all rows of a bench, and show meanwhile what it measures."""
    with console.status("measuring") as status:
        return list(bench(lambda what: status.update(f"measuring {what}")))


def finish(
    console: Console,
    bench: str,
    settings: Mapping[str, Any],
    rows: Sequence[Measurement],
    file: Path | None,
    left_out: Sequence[str] = (),
) -> None:
    """Print what was not measured and why, and write the result file."""
    for what in left_out:
        console.print(f"left out: {what}", highlight=False, soft_wrap=True)
    if file is not None:
        from laconic.bench.measure import result_of

        file.write_text(json.dumps(result_of(bench, settings, rows, left_out), indent=2) + "\n")


def check(repeats: int, file: Path | None) -> None:
    """Check the options of all benches.

    Raises:
        ValueError: `repeats` is below 1, or the folder of `file` does not exist.
    """
    if repeats < 1:
        raise ValueError(f"--repeats {repeats} must be at least 1; 15 gives a steady median")
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--json {file}: there is no folder {file.parent}; make it, or write elsewhere")


def check_size(option: str, d: int) -> None:
    """Check the number of parameters `d`.

    Raises:
        ValueError: `d` is out of range.
    """
    if not 2 <= d <= 2**32:
        raise ValueError(f"{option} {d} must be in 2 .. {2**32}; ResNet-18 has 11173962")


def algorithms_in(names: str) -> tuple[str, ...]:
    """Return the names between commas, or all algorithms if there is none.

    Raises:
        ValueError: A name is unknown.
    """
    from laconic.contract import ALGORITHMS

    known = sorted(ALGORITHMS)
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in chosen:
        if name not in ALGORITHMS:
            raise ValueError(f"--algorithms: unknown {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    return chosen or tuple(known)


def bench_table(title: str, caption: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return an empty table with left-aligned `names` columns and right-aligned `numbers` columns."""
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0,
        show_edge=False,
    )  # fmt: skip
    for column in names:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def quartiles_text(row: Measurement) -> str:
    """Return the quartiles as text."""
    lower, upper = row.quartiles
    return f"{lower:.3g} .. {upper:.3g}"


def bar_text(value: float, bar: float | None) -> str:
    """Return the bar as text, with a star if `value` is above it."""
    return "" if bar is None else f"{bar:.3g}{'*' if value > bar else ' '}"
