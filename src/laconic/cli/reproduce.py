"""`laconic reproduce`: run a paper's table and print the results beside the published figures."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from laconic.cli.exit_codes import DIVERGED
from laconic.cli.flags import with_flags
from laconic.cli.progress_display import TasksDisplay
from laconic.errors import Named, OptionError
from laconic.lab.options import OptionGroup, option
from laconic.lab.processes.stopping import Stopped
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.lab.processes.pool import Figures, Task


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise ValueError("must be whole numbers with commas between them, such as 1,19,31") from None


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions(OptionGroup):
    """The options of `laconic reproduce`."""

    name: str | None = option(None, "The name of a table. Without it, all tables are listed.", positional=True)
    data: str | None = option(None, "The folder or file of the data set.", metavar="PATH")
    seeds: str | None = option(
        None, "The seeds to train with, for a table that trains.", metavar="1,19,31", reads=_seeds
    )
    methods: str | None = option(None, "The rows of the table to run.", metavar="A,B", shown="all")
    jobs: int | None = option(
        None, "The number of processes, of one thread each, that run at once.", within="[1, inf)", unit="processes",
        shown="cores",
    )  # fmt: skip
    out: Path | None = option(None, "The file to write all figures to, as JSON.", metavar="FILE")
    list: bool = option(False, "List the tables and exit.")


@with_flags(ReproduceOptions)
def reproduce(context: typer.Context, options: ReproduceOptions) -> None:
    """Run a published table and print the results beside the published figures."""
    name, out = options.name, options.out
    if options.list or name is None:
        _list()
        return
    from laconic.lab.processes.pool import run_tasks
    from laconic.report.published import partial_path, side_by_side, write_partial_result, write_result
    from laconic.reproduce import table_of
    from laconic.reproduce.table import Request

    table = table_of(name)
    if out is not None and out.is_dir():
        raise OptionError(Named("out", out), f" is a folder; give the file to write, such as {out / (name + '.json')}")
    seeds = () if options.seeds is None else _seeds(options.seeds)
    methods = () if options.methods is None else _words(options.methods)
    request = table.plan(Request(data=options.data, seeds=seeds, methods=methods))
    parts = table.tasks(request)
    finished: dict[str, Figures] = {}

    def keep(job: "Task", figures: "Figures") -> None:
        finished[job.label] = figures
        if out is not None:
            write_partial_result(out, table, request, finished)

    try:
        with TasksDisplay() as display:
            found = run_tasks(parts, options.jobs or os.cpu_count() or 1, display.listen, keep)
    except Stopped as stopped:
        if out is not None and finished:
            write_partial_result(out, table, request, finished)  # the signal may have interrupted the last write
            stopped.add_note(f"finished, in {partial_path(out)}: {', '.join(finished)}")
        raise
    comparison = table.compare(found)
    console = terminal()
    console.print(side_by_side(table, comparison))
    if out is not None:
        write_result(out, table, request, found, comparison)
        console.print(f"wrote {out}")
    if comparison.diverged:
        raise typer.Exit(DIVERGED)


def _list() -> None:
    from laconic.reproduce import TABLES

    listing = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    listing.add_column("table", no_wrap=True)
    listing.add_column("what it shows, and its source")
    for name, table in TABLES.items():
        listing.add_row(name, Text.assemble(table.title, "\n", (table.source, "dim")))
    terminal().print(listing)
