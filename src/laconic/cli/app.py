"""The commands' entry, and what a user sees when something is wrong: one line, no traceback."""

import sys
import warnings
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import laconic
from laconic.cli.bench.app import bench
from laconic.cli.plan import plan
from laconic.cli.reproduce import reproduce
from laconic.cli.show import list_algorithms, show
from laconic.cli.timeline import timeline
from laconic.cli.train import compare, run
from laconic.contract import load_plugins
from laconic.errors import ContractError, LaunchError, PeerLostError, ReplicaError
from laconic.lab.processes.supervise import Stopped, stopped_by_signals
from laconic_start import end_at_once, exit_code, stopped_line

app = typer.Typer(
    name="laconic",
    help="Train PyTorch models over slow, lossy and unreliable networks, with every byte counted.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(laconic.__version__)
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    load: Annotated[
        list[str] | None,
        typer.Option("--load", metavar="FILE", help="A Python file with algorithms of your own. May be given often."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of all commands."""
    load_plugins(load or [])
    context.obj = tuple(load or [])


app.command("list")(list_algorithms)
app.command("show")(show)
app.command("run")(run)
app.command("compare")(compare)
app.command("reproduce")(reproduce)
app.command("plan")(plan)
app.command("timeline")(timeline)
app.add_typer(bench)


def _warn_in_one_line() -> None:
    """Show a warning as errors are shown, and once: what is wrong and the way out, without a place in our code."""
    said: set[str] = set()

    def show(message: Warning | str, *place: object, **more: object) -> None:
        if str(message) not in said:
            said.add(str(message))
            text = Text.assemble(("warning: ", "bold yellow"), str(message))
            Console(stderr=True).print(text, soft_wrap=True)

    warnings.showwarning = show


def main() -> None:
    """Run the command line; the user's mistakes end with exit code 2 and one line that says what to do.

    SIGTERM and Ctrl-C end it with one line, too, that says what is finished and on disk; exit codes 143 and 130.
    """
    try:
        with stopped_by_signals(end_at_once), warnings.catch_warnings():
            _warn_in_one_line()
            app()
    except Stopped as stopped:
        line = "; ".join([stopped_line(stopped.number), *getattr(stopped, "__notes__", [])])
        Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
        sys.exit(exit_code(stopped.number))
    except (ValueError, OSError, LaunchError, PeerLostError, ReplicaError, ContractError) as error:
        text = Text.assemble(("error: ", "bold red"), str(error))
        Console(stderr=True).print(text, soft_wrap=True)
        sys.exit(2)
