"""`laconic report`: the page of a comparison, and the files beside it."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet
from laconic.lab.options import OptionGroup, option
from laconic.lab.outputs import output_file
from laconic.report.terminal import terminal
from laconic.report.visible import visible


@dataclass(frozen=True, kw_only=True)
class ReportOptions(OptionGroup):
    """Which runs are shown, and where the files go."""

    folder: Path = option(
        ..., "The folder of a comparison, or any folder with runs in it or below it.", metavar="FOLDER", positional=True
    )  # fmt: skip
    out: Path | None = option(
        None, "The folder to write into, which is made if it is missing.", metavar="FOLDER", shown="the same folder"
    )  # fmt: skip


@with_flags(ReportOptions, alone=True)
def report(context: typer.Context, options: ReportOptions) -> None:
    """Write the page of a comparison: tables, curves with bands over seeds, times on any network, in one file."""
    from laconic.report.comparison_page.files import PAGE, write_report  # here, since torch takes a second to load

    with ExitStack() as stack:
        if options.out is not None:  # before many runs are read
            stack.enter_context(output_file(options.out / PAGE, option="out"))
        for path in write_report(options.folder, options.out):
            if not is_quiet(context):
                terminal().print(f"wrote {visible(str(path))}", soft_wrap=True)
