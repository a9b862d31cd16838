"""What `laconic run` and `laconic compare` print and draw of their finished runs, and how they end."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from laconic.cli.exit_codes import DIVERGED
from laconic.cli.json_output import JsonOutput
from laconic.errors import LaconicError, OptionError, Spelling
from laconic.lab.atomic import write_bytes
from laconic.lab.outputs import OutputFile
from laconic.lab.processes.place import described
from laconic.report.terminal import terminal
from laconic.report.visible import visible

if TYPE_CHECKING:
    from laconic.lab.runs.batch import Batch
    from laconic.lab.runs.record import Record


def exit_if_diverged(records: "Sequence[Record]") -> None:
    """Leave the command with exit code 3 if a run diverged: a script must not take its figures for a result."""
    if any(record.why_diverged for record in records):
        raise typer.Exit(DIVERGED)


def report(batch: "Batch", out: Path | None, plots: Sequence[OutputFile], file: JsonOutput, *, shows: bool) -> None:
    """Print and write the figures of what is finished, draw the curves, and raise what went wrong.

    Raises:
        LaconicError: A run has failed, or something could not be written.
    """
    records = batch.records
    print_table(records, lr_by_method=batch.in_folders, console=file.console, notes=shows)
    problems = [*_failures(batch)]
    lines = [file.write(figures_of(batch))]
    if records:
        pictures = [] if out is None else _pictures_in(out, records, in_folders=batch.in_folders)
        failed = _draw([*pictures, *((plot, records) for plot in plots)])
        problems += failed.values()
        written = [] if out is None or batch.unwritten else [out]
        written += [plot.path for plot in plots if plot.path not in failed]
        lines += [f"wrote {visible(str(path))}" for path in written]
    for line in filter(None, lines if shows else []):
        file.console.print(line, soft_wrap=True)
    if problems:
        raise LaconicError("\n".join(problems))


def figures_of(batch: "Batch") -> dict[str, Any]:
    """Return the figures of finished runs: the options of each, and what is in its `summary.json`."""
    return {
        "runs": [{"name": record.settings.algorithm, "options": record.settings.as_data(), **record.summary()}
                 for record in batch.records]
    }  # fmt: skip


def print_table(
    records: "Sequence[Record]", *, lr_by_method: bool, console: Console | None = None, notes: bool = True
) -> None:
    """Print the table of finished runs, and the notes on it; nothing if there are none."""
    from laconic.report.table import comparison
    from laconic.report.table_notes import notes_on

    if not records:
        return
    console = console or terminal()
    console.print(comparison(records))
    for note in notes_on(records, lr_by_method=lr_by_method) if notes else ():
        console.print(note)


def _failures(batch: "Batch") -> Iterator[str]:
    """Return why runs failed or could not be written, a line each."""
    from laconic.lab.runs.batch import reason_of

    for name, error in batch.failures.items():
        reason = reason_of(error)
        words = reason.spelled(Spelling.FLAG) if isinstance(reason, OptionError) else str(reason)
        so_far = batch.how_far(name).removeprefix(name).strip(" ()")
        yield f"{f'{name}: ' if batch.in_folders else ''}{words}{f'; it got to {so_far}' if so_far else ''}"
    for name, unwritten in batch.unwritten.items():
        yield f"{name} is finished, but {unwritten.filename} could not be written: {unwritten.strerror}"


def _pictures_in(
    out: Path, records: "Sequence[Record]", *, in_folders: bool
) -> "list[tuple[OutputFile | Path, Sequence[Record]]]":
    """Return the pictures of a folder of results: one of all runs, and one of each in its own folder."""
    of_one = [(out / record.settings.algorithm / "curves.png", [record]) for record in records if in_folders]
    return [*of_one, (out / "curves.png", records)]


def _draw(pictures: "Sequence[tuple[OutputFile | Path, Sequence[Record]]]") -> dict[Path, str]:
    """Draw the curves, and return why that failed, by file."""
    problems = {}
    for file, records in pictures:
        path = file if isinstance(file, Path) else file.path
        try:
            from laconic.report.curves import draw_curves  # here, where a fault of matplotlib costs no result

            picture = draw_curves(records, path.suffix)
            if isinstance(file, Path):
                write_bytes(file, picture)
            else:
                file.write_bytes(picture)
        except OSError as error:
            problems[path] = f"{path} could not be written: {error.strerror or error}; the figures are written"
        except Exception as error:
            problems[path] = f"{path} could not be drawn: {described(error)}; the figures are written"
    return problems
