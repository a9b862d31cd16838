"""`laconic data`: check and fetch data sets, and show how workers share one."""

from typing import Annotated

import typer

from laconic.cli.invocation import LOAD, QUIET, invocation_of
from laconic.cli.lazy import LazyCommand, LazyGroup


class _Data(LazyGroup):
    lazy_commands = (
        LazyCommand(
            "check", "laconic.cli.data.commands", "data_check",
            "Check that the files of a data set are there, have the published checksums and can be read.",
        ),
        LazyCommand(
            "fetch", "laconic.cli.data.commands", "data_fetch",
            "Fetch the files of a published data set from an address, go on where a fetch broke off, and check them.",
        ),
        LazyCommand(
            "partition", "laconic.cli.data.partition", "data_partition",
            "Show how workers share a data set: examples and classes of each.",
        ),
    )  # fmt: skip


data = typer.Typer(
    name="data",
    cls=_Data,
    help="Check and fetch data sets, and show how workers share one.",
    no_args_is_help=True,
)


@data.callback()
def options(
    context: typer.Context,
    load: Annotated[list[str] | None, typer.Option("--load", metavar="FILE", help=LOAD)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help=QUIET)] = False,
) -> None:
    """Check and fetch data sets, and show how workers share one."""
    invocation_of(context).add(load or [], quiet=quiet)
