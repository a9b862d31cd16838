"""`laconic list`: the algorithms, and what each does, one line a method."""

from dataclasses import dataclass

import typer

from laconic.cli.algorithm_files import described
from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet, plugins_of
from laconic.lab.options import OptionGroup
from laconic.report.fitting import FittingTable
from laconic.report.terminal import terminal


@dataclass(frozen=True, kw_only=True)
class ListOptions(OptionGroup):
    """The options of `laconic list`."""


@with_flags(ListOptions, needs_torch=False)
def list_algorithms(context: typer.Context, options: ListOptions) -> None:
    """List the algorithms with what each does."""
    table = FittingTable()
    table.add_column("algorithm")
    table.add_column("what it does", wraps=True)
    for one in described(plugins_of(context)):
        table.add_row(one.name, one.about)
    console = terminal()
    console.print(table)
    if not is_quiet(context):
        console.print("\n`laconic show NAME` prints the paper, bits, layouts and hyper-parameters of one algorithm.")
