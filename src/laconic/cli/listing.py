"""`laconic list`: the algorithms, and what each does, one line a method."""

from dataclasses import asdict, dataclass
from pathlib import Path

import typer

from laconic.cli.algorithm_files import described
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet, plugins_of
from laconic.cli.json_output import json_option, json_output
from laconic.lab.options import OptionGroup
from laconic.report.fitting import FittingTable


@dataclass(frozen=True, kw_only=True)
class ListOptions(OptionGroup):
    """The options of `laconic list`."""

    json: Path | None = json_option()


@with_flags(ListOptions, needs_torch=False)
def list_algorithms(context: typer.Context, options: ListOptions) -> None:
    """List the algorithms with what each does."""
    with json_output(options.json) as file:
        found = described(plugins_of(context))
        table = FittingTable()
        table.add_column("algorithm")
        table.add_column("what it does", wraps=True)
        for one in found:
            table.add_row(one.name, one.about)
        written = file.write([asdict(one) for one in found])
        file.console.print(table)
        if not is_quiet(context):
            file.console.print(
                "\n`laconic show NAME` prints the paper, equations and hyper-parameters of one algorithm."
            )
            file.console.print(written, soft_wrap=True, end="\n" if written else "")
