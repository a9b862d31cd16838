"""`laconic reproduce`: run a paper's table and print the results beside the published figures."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from laconic.cli.cell_display import CellDisplay
from laconic.cli.exit_codes import DIVERGED
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import JsonOutput, json_option, json_output
from laconic.errors import LaconicError, Named, OptionError
from laconic.lab.json_text import json_text
from laconic.lab.options import OptionGroup, option
from laconic.lab.outputs import OutputFile, check_old_results, output_file, output_folder
from laconic.lab.processes.starting import start_template
from laconic.lab.processes.stopping import Stopped
from laconic.report.terminal import terminal
from laconic.report.visible import visible
from laconic.statements import LaconicWarning, warn

if TYPE_CHECKING:
    from laconic.lab.comparison.cell_runs import CellWork
    from laconic.lab.comparison.results import CellResult
    from laconic.lab.processes.pool import Figures, PoolTask
    from laconic.reproduce.cells import FinishedTasks
    from laconic.reproduce.table import PublishedTable, Request, SideBySide


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

    names: tuple[str, ...] = option(
        (), "The items of the papers to run, or one of the full tables. Without a name, all are listed.",
        positional=True,
    )  # fmt: skip
    all: bool = option(False, "Run all items. Those that cannot be run here are named.")
    full: bool = option(False, "Run items in the printed setting, which takes GPUs and days.")
    grid: bool = option(
        False, "Search the learning rates of items again: a third, one and three times each, the same tries for all "
        "methods, one seed, a third of the epochs. The best are then run.",
    )  # fmt: skip
    data: tuple[str, ...] = option(
        (), "The folder of a data set; for items with its name. Can be given several times.", metavar="[NAME=]PATH"
    )
    seeds: str | None = option(
        None, "The seeds to train with, for a table that trains.", metavar="1,19,31", reads=_seeds
    )
    methods: str | None = option(None, "The rows of the table to run.", metavar="A,B", shown="all")
    jobs: int | None = option(
        None, "The number of processes, of one thread each, that run at once.", within="[1, inf)", unit="processes",
        shown="cores",
    )  # fmt: skip
    json: Path | None = json_option()
    out: Path | None = option(
        None, "Of a full table, the file to write all figures to, as JSON; what is finished is kept beside it until "
        "all is. Of items, the folder in which what is finished is kept: it is not run again.",
        metavar="PATH",
    )  # fmt: skip
    page: Path | None = option(
        None, "Write a page with the results of all items that are finished in --out.", metavar="FILE.md"
    )
    overwrite: bool = option(False, "Begin anew where an earlier command with this --out was stopped.")
    resume: bool = option(
        False, "Go on where an earlier command with this --out was stopped: what it has finished is not run again."
    )
    list: bool = option(False, "List the items and tables, with the verdicts that --out holds, and exit.")

    def __post_init__(self) -> None:
        """Check that the options go together. Raises OptionError if they do not."""
        super().__post_init__()
        if self.all and self.names:
            raise OptionError(Named("all", True), f" runs all items; leave {', '.join(self.names)} out")
        if self.page is not None and self.out is None:
            raise OptionError(Named("page", str(self.page)), " is of what a folder holds, so it needs ", Named("out"))
        check_old_results(self.out, overwrite=self.overwrite, resume=self.resume)


def _before_torch(context: typer.Context, options: ReproduceOptions) -> None:
    if (options.names or options.all) and not options.list:
        start_template()  # which imports torch, as this process does next


@with_flags(ReproduceOptions, alone=True, before_torch=_before_torch)
def reproduce(context: typer.Context, options: ReproduceOptions) -> None:
    """Run what the papers' tables and figures show, and print the results beside the published figures."""
    from laconic.reproduce import TABLES, table_of

    if options.list or not (options.names or options.all or options.page):
        with json_output(options.json) as figures:
            _list(figures, options)
        return
    tables = [name for name in options.names if name in TABLES]
    if len(tables) == 1 == len(options.names):
        _run_table(context, table_of(tables[0]), options)
        return
    if tables:
        raise OptionError(f"{tables[0]} is a full table, which is run by itself; leave the other names out")
    _run_items(context, options)


def _run_items(context: typer.Context, options: ReproduceOptions) -> None:
    from laconic.cli.reproduce_items import run_items
    from laconic.cli.reproduce_page import write_page
    from laconic.reproduce import TABLES
    from laconic.reproduce.item_runs import Choices
    from laconic.reproduce.items import in_full, item_of, items

    if options.methods is not None:
        raise OptionError(Named("methods", options.methods), " is for a full table; items have all rows")
    chosen = (
        list(items().values())
        if options.all
        else [item_of(name, list(TABLES)) for name in dict.fromkeys(options.names)]
    )
    chosen = [in_full(item) for item in chosen] if options.full else chosen
    choices = Choices(
        data=_data_by_name(options.data), seeds=() if options.seeds is None else _seeds(options.seeds),
        full=options.full,
    )  # fmt: skip
    quiet = is_quiet(context)
    with ExitStack() as stack:
        figures = stack.enter_context(json_output(options.json))
        page = None if options.page is None else stack.enter_context(output_file(options.page, option="page"))
        if chosen:
            run_items(
                chosen, choices, figures, out=options.out, jobs=options.jobs,
                overwrite=options.overwrite, skip_refused=options.all, grid=options.grid, quiet=quiet,
            )  # fmt: skip
        if page is not None:
            assert options.out is not None
            write_page(page, options.out, choices)
            terminal(quiet=quiet).print(f"wrote {visible(str(page.path))}", soft_wrap=True)


def _data_by_name(texts: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals:
            raise OptionError(Named("data", text, quoted=True), " needs the name of the data set: NAME=PATH")
        found[name] = path
    return found


def _run_table(context: typer.Context, table: "PublishedTable", options: ReproduceOptions) -> None:
    from laconic.reproduce.cells import FinishedTasks, cells_folder, remove_if_empty
    from laconic.reproduce.table import Request

    for name in ("full", "grid", "page"):
        if getattr(options, name):
            raise OptionError(Named(name, getattr(options, name)), f" is for items; {table.name} is a full table")
    if len(options.data) > 1:
        raise OptionError(Named("data", options.data[1]), f": {table.name} reads one data set; leave the others out")
    out, data = options.out, options.data[0] if options.data else None
    seeds = () if options.seeds is None else _seeds(options.seeds)
    methods = () if options.methods is None else _words(options.methods)
    request = table.plan(Request(data=data, seeds=seeds, methods=methods))
    jobs = options.jobs
    with ExitStack() as stack:
        figures = stack.enter_context(json_output(options.json))
        if out is None:
            _Reproduction(table, request, figures, quiet=is_quiet(context)).run(jobs, None)
            return
        file = stack.enter_context(output_file(out, option="out"))
        stack.callback(remove_if_empty, cells_folder(out))  # after the folder is closed
        folder = stack.enter_context(output_folder(cells_folder(out), option="out", overwrite=True))
        cells = FinishedTasks(folder.path, table)
        if not options.resume and not options.overwrite:
            cells.refuse()
        if options.overwrite:
            cells.forget_unfinished()
        _Reproduction(table, request, figures, cells, resume=options.resume, quiet=is_quiet(context)).run(jobs, file)


class _Reproduction:
    """The tasks of a table: each is kept when it is finished."""

    def __init__(
        self,
        table: "PublishedTable",
        request: "Request",
        json: JsonOutput,
        cells: "FinishedTasks | None" = None,
        *,
        resume: bool = False,
        quiet: bool = False,
    ) -> None:
        """Take up what is finished, if `resume`."""
        self._table, self._request, self._cells, self._quiet = table, request, cells, quiet
        self._json = json
        self._tasks = table.tasks(request)
        self._found: dict[str, Figures] = {}
        self._problems: list[str] = []
        if cells is not None and resume:
            self._found = cells.finished(self._tasks)
        for label in self._found:
            terminal(stderr=True, quiet=quiet).print(f"{label} is finished; it is not run again", soft_wrap=True)

    def run(self, jobs: int | None, file: OutputFile | None) -> None:
        """Run what is left, print the table and write the file.

        Raises:
            LaconicError: A task has failed. The table of the others is printed, and they are kept.
        """
        from laconic.lab.comparison.cell_runs import CellRuns

        left = {task.label: task for task in self._tasks if task.label not in self._found}

        def keep(work: "CellWork", result: "CellResult", figures: "Figures | None") -> "list[CellResult]":
            if figures is None:
                self._problems.append(f"{work.name}: {result.why}")
            else:
                self._keep(left[work.name], figures)
            return [result]

        try:
            with CellDisplay(shown=not self._quiet) as display:
                CellRuns([self._work(task) for task in left.values()], keep, jobs=jobs, listen=display.listen).run()
        except Stopped as stopped:
            for task in self._tasks:
                if task.label in self._found and self._cells is not None and not self._cells.has(task):
                    self._keep(task, self._found[task.label])  # the signal interrupted its write
            self._print()
            for clause in self._state():
                stopped.add_note(clause)
            raise
        comparison = self._print()
        if self._problems:
            raise LaconicError("\n".join([*self._problems, *self._state()]))
        if comparison is not None:
            from laconic.report.published import result_of

            self._write(result_of(self._table, self._request, self._in_order(), comparison), file)
        if comparison is not None and comparison.diverged:
            raise typer.Exit(DIVERGED)

    def _write(self, result: dict[str, Any], file: OutputFile | None) -> None:
        """Write the result where --json and --out want it. What is finished need not be kept beside it any more."""
        lines = [self._json.write(result)]
        if file is not None:
            file.write_text(json_text(result, indent=1))
            if self._cells is not None:
                self._cells.remove(list(self._found))
            lines.append(f"wrote {visible(str(file.path))}")
        for line in filter(None, lines):
            terminal(quiet=self._quiet or self._json.in_place_of_tables).print(line, soft_wrap=True)

    def _keep(self, task: "PoolTask", figures: "Figures") -> None:
        self._found[task.label] = figures
        if self._cells is not None:
            try:
                self._cells.keep(task, figures)
            except OSError as error:
                with suppress(LaconicWarning):  # a warning that is an error here would cost the table
                    warn(f"{error.filename}: {error.strerror}; {task.label} is finished, but not kept on disk")

    def _work(self, task: "PoolTask") -> "CellWork":
        from laconic.lab.comparison.cell_runs import CellWork

        saves = self._table.saves_midway and self._cells is not None
        more = {"folder": self._cells.of(task)} if saves and self._cells is not None else {}
        return CellWork(
            names=(task.label,), kind=task.label, work=task.work, arguments={**task.arguments, **more},
        )  # fmt: skip

    def _in_order(self) -> "list[Figures]":
        return [self._found[task.label] for task in self._tasks if task.label in self._found]

    def _print(self) -> "SideBySide | None":
        """Print the table of what is finished, and return it; None if nothing is."""
        from laconic.report.published import side_by_side

        if not self._found:
            return None
        comparison = self._table.compare(self._in_order())
        self._json.console.print(side_by_side(self._table, comparison))
        return comparison

    def _state(self) -> list[str]:
        """Return what is finished and where it is, and what is not."""
        left = [task.label for task in self._tasks if task.label not in self._found]
        where = "" if self._cells is None else f", in {self._cells.folder}"
        clauses = [f"finished{where}: {', '.join(self._found)}"] if self._found else []
        if left:
            clauses.append(f"not finished: {', '.join(left)}")
        if left and self._found and self._cells is not None:
            clauses.append("the same command with --resume goes on from there")
        return clauses


def _list(figures: JsonOutput, options: ReproduceOptions) -> None:
    from laconic.cli.reproduce_items import known_verdicts
    from laconic.report.items import list_of
    from laconic.reproduce import TABLES
    from laconic.reproduce.item_runs import Choices
    from laconic.reproduce.items import items

    choices = Choices(data=_data_by_name(options.data), full=options.full)
    verdicts = known_verdicts(options.out, choices)
    figures.console.print(list_of(list(items().values()), verdicts), "")
    listing = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    listing.add_column("full table", no_wrap=True)
    listing.add_column("what it shows, and its source")
    for name, table in TABLES.items():
        listing.add_row(name, Text.assemble(table.title, "\n", (table.source, "dim")))
    figures.console.print(listing)
    tables = [{"name": name, "title": table.title, "source": table.source} for name, table in TABLES.items()]
    listed = [
        {"name": item.name, "paper": item.paper, "prints": item.prints, "title": item.title, "kind": item.kind,
         "minutes": item.minutes, "verdict": verdicts.get(item.name)}
        for item in items().values()
    ]  # fmt: skip
    if wrote := figures.write({"items": listed, "tables": tables}):
        figures.console.print(wrote, soft_wrap=True)
