"""`laconic compare FILE.toml`: methods x seeds x networks x partitions, several runs at once."""

import shlex
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from laconic.cli.cell_display import CellDisplay
from laconic.cli.compare_options import CompareOptions
from laconic.cli.exit_codes import DIVERGED
from laconic.cli.invocation import is_quiet, plugins_of, refuse_ranks
from laconic.cli.json_output import JsonOutput, json_output
from laconic.cli.launch_options import LaunchOptions
from laconic.errors import LaconicError, Named, OptionError
from laconic.lab.outputs import output_folder
from laconic.lab.own_results import run_folders
from laconic.lab.processes.place import described
from laconic.lab.processes.stopping import Stopped
from laconic.report.terminal import terminal
from laconic.report.visible import visible
from laconic.units import size

if TYPE_CHECKING:
    from laconic.lab.comparison.engine import ComparisonRun


def compare_cells(
    context: typer.Context, options: CompareOptions, given: Mapping[str, Any], launch: LaunchOptions
) -> None:
    """Train all cells that are not finished, print the table and write the folder.

    Raises:
        LaconicError: A cell has failed. All that is finished is printed and written.
    """
    from laconic.lab.comparison.engine import ComparisonRun
    from laconic.lab.runs.logged_run import check_logs

    refuse_ranks(context)
    quiet = is_quiet(context)
    asked = options.asked(given)
    comparison = asked.comparison()
    asked.check(comparison)
    place = options.place()
    folder = options.folder(launch.out)
    assert folder is not None
    check_logs(launch.log, folder)
    with ExitStack() as stack:
        file = stack.enter_context(json_output(launch.json))
        out = stack.enter_context(output_folder(folder, option="out", overwrite=launch.overwrite, resume=launch.resume))
        if launch.overwrite:
            out.clear()
        _refuse_other_runs(folder)
        run = ComparisonRun(
            comparison, folder, plugins=plugins_of(context), logs=launch.log, command=shlex.join(_command())
        )
        console = terminal(stderr=True, quiet=quiet)
        if run.taken_up:
            console.print(f"{len(run.taken_up)} of {len(run.cells)} cells are finished; they are not run again")
        try:
            with asked.file_named(), CellDisplay(shown=not quiet) as display:
                run.run(
                    jobs=options.jobs, memory_bytes=None if options.memory is None else size(options.memory),
                    listen=display.listen, place=place, all_started=_load_page,
                )  # fmt: skip
        except Stopped as stopped:
            _print(run, file.console, notes=not quiet)
            stopped.add_note(f"finished: {len(run.records)} of {len(run.cells)} cells, in {folder}")
            stopped.add_note("the same command with --resume goes on from there")
            raise
        _print(run, file.console, notes=not quiet)
        problem = _report(run, folder, file, quiet=quiet)
    _end(run, problem)


def _refuse_other_runs(folder: Path) -> None:
    """Refuse to go on in a folder of runs that are no cells of a comparison."""
    others = [one.name for one in run_folders(folder)]
    if others or (folder / "config.toml").is_file():
        what = f"runs of other commands ({', '.join(others)})" if others else "one run"
        raise OptionError(
            Named("resume", True), f": {folder} holds {what} and no comparison over seeds; give another folder, or ",
            Named("overwrite", True), " to begin anew",
        )  # fmt: skip


def _command() -> list[str]:
    return ["laconic", *sys.argv[1:]]


def _print(run: "ComparisonRun", console: Console, *, notes: bool) -> None:
    from laconic.report.comparison_table import comparison_table, notes_on_comparison

    console.print(comparison_table(run.results, run.records))
    for note in notes_on_comparison(run.results, run.memory_bytes) if notes else ():
        console.print(note, soft_wrap=True)


def _load_page() -> None:
    """Import what makes the page, while the last cells train."""

    def load() -> None:
        with suppress(Exception):  # the page says what is wrong
            import_module("laconic.report.comparison_page.files")
            import_module("laconic.report.drawing").load()

    threading.Thread(target=load, daemon=True).start()


def _report(run: "ComparisonRun", folder: Path, file: JsonOutput, *, quiet: bool) -> str:
    """Write the page and what `--json` wants, and say where the results are. Return what went wrong, if anything."""
    runs = [
        {"name": cell.name, "folder": cell.folder, "options": cell.settings.as_data(), **record.summary()}
        for cell, record in run.records.items()
    ]
    lines = [file.write({"runs": runs}), f"wrote {visible(str(folder))}"]
    problem = ""
    if run.records:
        try:
            from laconic.report.comparison_page.files import write_report  # here, where its fault costs no result

            lines.append(f"wrote {visible(str(write_report(folder)[0]))}")
        except Exception as error:
            problem = f"{folder}: its page could not be written: {described(error)}; the figures are written"
    for line in filter(None, () if quiet else lines):
        file.console.print(line, soft_wrap=True)
    return problem


def _end(run: "ComparisonRun", problem: str) -> None:
    """Leave the command by what has become of the cells.

    Raises:
        LaconicError: Some have failed, or there is another problem.
    """
    failed = [f"{cell.name}: {run.results[cell].why}" for cell in run.failed]
    if failed:
        failed.append("the other cells are whole; --resume runs the failed ones again")
    if failed or problem:
        raise LaconicError("\n".join(filter(None, [*failed, problem])))
    if any(result.state == "diverged" for result in run.results.values()):
        raise typer.Exit(DIVERGED)
