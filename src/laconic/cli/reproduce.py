"""`laconic reproduce`: run a paper's table and print the results beside the published figures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from laconic.cli.progress_display import TasksDisplay
from laconic.cli.train import Data
from laconic.lab.processes.stopping import Stopped

if TYPE_CHECKING:
    from laconic.lab.processes.pool import Figures, Task


def reproduce(
    name: Annotated[str | None, typer.Argument(help="The name of a table. Without it, all tables are listed.")] = None,
    data: Data = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="1,19,31", help="The seeds to train with, for a table that trains.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="The rows of the table to run.", show_default="all")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="The number of processes, of one thread each, that run at once.", show_default="cores"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The file to write all figures to, as JSON.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the tables and exit.")] = False,
) -> None:
    """Run a published table and print the results beside the published figures."""
    if list_ or name is None:
        _list()
        return
    from laconic.lab.processes.pool import run_tasks
    from laconic.report.published import partial_path, side_by_side, write_partial_result, write_result
    from laconic.reproduce import table_of
    from laconic.reproduce.table import Request

    table = table_of(name)
    if jobs is not None and jobs < 1:
        raise ValueError(f"--jobs {jobs} must be at least 1")
    if out is not None and out.is_dir():
        raise ValueError(f"--out {out} is a folder; give the file to write, such as {out / (name + '.json')}")
    request = table.plan(Request(data=data, seeds=_numbers(seeds), methods=_words(methods)))
    parts = table.tasks(request)
    finished: dict[str, Figures] = {}

    def keep(job: Task, figures: Figures) -> None:
        finished[job.label] = figures
        if out is not None:
            write_partial_result(out, table, request, finished)

    try:
        with TasksDisplay() as display:
            found = run_tasks(parts, jobs or os.cpu_count() or 1, display.listen, keep)
    except Stopped as stopped:
        if out is not None and finished:
            write_partial_result(out, table, request, finished)  # the signal may have interrupted the last write
            stopped.add_note(f"finished, in {partial_path(out)}: {', '.join(finished)}")
        raise
    comparison = table.compare(found)
    console = Console()
    console.print(side_by_side(table, comparison), highlight=False)
    if out is not None:
        write_result(out, table, request, found, comparison)
        console.print(f"wrote {out}", highlight=False)


def _list() -> None:
    from laconic.reproduce import TABLES

    listing = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    listing.add_column("table", no_wrap=True)
    listing.add_column("what it shows, and its source")
    for name, table in TABLES.items():
        listing.add_row(name, f"{table.title}\n[dim]{table.source}[/dim]")
    Console().print(listing)


def _words(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(word.strip() for word in text.split(","))


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise ValueError(f"--seeds {text!r} must be whole numbers with commas between them, such as 1,19,31") from None
