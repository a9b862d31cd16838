"""What all benches' commands share: checks of options, tables, files."""

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

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here.")]
Repeats = Annotated[int, typer.Option("--repeats", help="How often each is measured.")]
Algorithms = Annotated[
    str, typer.Option("--algorithms", metavar="NAMES", help="Names of `laconic list`, with commas between them.")
]

Listen = Callable[[str], None]


def measured(console: Console, bench: Callable[[Listen], Iterable[Measurement]]) -> list[Measurement]:
    """All rows of a bench, with what it is at shown meanwhile."""
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
    """Say what was not measured and why, and write the file."""
    for what in left_out:
        console.print(f"left out: {what}", highlight=False, soft_wrap=True)
    if file is not None:
        from laconic.bench.measure import result_of

        file.write_text(json.dumps(result_of(bench, settings, rows, left_out), indent=2) + "\n")


def check(repeats: int, file: Path | None) -> None:
    """Raises ValueError for options that no bench can take."""
    if repeats < 1:
        raise ValueError(f"--repeats {repeats} must be at least 1; 15 gives a steady median")
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--json {file}: there is no folder {file.parent}; make it, or write elsewhere")


def check_size(option: str, d: int) -> None:
    """Raises ValueError for a vector's length that is none."""
    if not 2 <= d <= 2**32:
        raise ValueError(f"{option} {d} must be in 2 .. {2**32}; ResNet-18 has 11173962")


def algorithms_in(names: str) -> tuple[str, ...]:
    """The names between commas; all where there is none. Raises ValueError for an unknown one."""
    from laconic.contract import ALGORITHMS

    known = sorted(ALGORITHMS)
    chosen = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in chosen:
        if name not in ALGORITHMS:
            raise ValueError(f"--algorithms: unknown {name!r}; known: {', '.join(known)}{near_misses(name, known)}")
    return chosen or tuple(known)


def bench_table(title: str, caption: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Names to the left, numbers to the right."""
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
    """The quartiles."""
    lower, upper = row.quartiles
    return f"{lower:.3g} .. {upper:.3g}"


def bar_text(value: float, bar: float | None) -> str:
    """What may be at most; with a star where it is more."""
    return "" if bar is None else f"{bar:.3g}{'*' if value > bar else ' '}"
