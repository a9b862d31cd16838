"""`laconic list`: the algorithms and their papers."""

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from laconic.cli.algorithm_files import described
from laconic.report.terminal import terminal


def list_algorithms(context: typer.Context) -> None:
    """List the algorithms with what each does and its paper."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("algorithm", no_wrap=True)
    table.add_column("what it does, and its paper")
    for one in described(context.obj or ()):
        table.add_row(one.name, Text.assemble(one.about, "\n", (one.source, "dim")))
    console = terminal()
    console.print(table)
    console.print("\n`laconic show NAME` prints the bits, layouts, hyper-parameters and claims of one algorithm.")
