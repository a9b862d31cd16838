"""The entry point of the command line. A user's mistake is reported in one line, without a traceback."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import laconic
from laconic.cli.bench.app import bench
from laconic.cli.data.app import data
from laconic.cli.invocation import LOAD, QUIET, invocation_of
from laconic.cli.lazy import LazyCommand, LazyGroup
from laconic.cli.usage import UsageError, usage_line
from laconic.errors import LaconicError, OptionError, Spelling
from laconic.lab.processes.place import described, inner_place_of, place_of
from laconic.lab.processes.stopping import Stopped, end_at_once, exit_code, stopped_by_signals, stopped_line
from laconic.report.terminal import terminal
from laconic.report.visible import visible_lines


class _Commands(LazyGroup):
    lazy_commands = (
        LazyCommand(
            "list", "laconic.cli.listing", "list_algorithms",
            "List the algorithms with what each does.",
        ),
        LazyCommand(
            "show", "laconic.cli.show", "show",
            "Show the paper, equations, hyper-parameters, claims and bits of one algorithm.",
        ),
        LazyCommand(
            "run", "laconic.cli.train", "run",
            "Train one model with one algorithm. Under torchrun it joins the running processes.",
        ),
        LazyCommand(
            "compare", "laconic.cli.train", "compare",
            "Train the same model with several algorithms and print one table.",
        ),
        LazyCommand(
            "check", "laconic.cli.check", "check",
            "Check under torchrun that all machines agree and reach each other, and how fast, with exit code 0 or 1.",
        ),
        LazyCommand(
            "reproduce", "laconic.cli.reproduce", "reproduce",
            "Run what the papers' tables and figures show, and print the results beside the published figures.",
        ),
        LazyCommand(
            "report", "laconic.cli.report", "report",
            "Write the page of a comparison: tables, curves with bands over seeds, times on any network, in one file.",
        ),
        LazyCommand(
            "plan", "laconic.cli.plan", "plan",
            "Predict step times on a network: which method and layout is fastest, and when plain all-reduce is.",
        ),
        LazyCommand(
            "timeline", "laconic.cli.timeline", "timeline",
            "Draw when each machine sends, receives and computes, on links that you describe or in a recorded run.",
        ),
    )  # fmt: skip


app = typer.Typer(
    name="laconic",
    cls=_Commands,
    help="Train PyTorch models over slow, lossy and unreliable networks, with every byte counted.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    load: Annotated[list[str] | None, typer.Option("--load", metavar="FILE", help=LOAD)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help=QUIET)] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Print the version.")
    ] = False,
) -> None:
    """Options of all commands."""
    invocation_of(context).add(load or [], quiet=quiet)


app.add_typer(bench)
app.add_typer(data)


_MAX_WARNINGS = 20  # a file with methods may warn without end


def _warn_in_one_line() -> None:
    """Print each distinct warning once, in one line, without the file and line of our code."""
    shown: set[str] = set()

    def show(message: Warning | str, *place: object, **more: object) -> None:
        if str(message) not in shown and len(shown) <= _MAX_WARNINGS:
            shown.add(str(message))
            if len(shown) > _MAX_WARNINGS:
                message = f"there are more than {_MAX_WARNINGS} warnings; further ones are not shown"
            text = Text.assemble(("warning: ", "bold yellow"), visible_lines(str(message)).replace("\n", "\n  "))
            terminal(stderr=True).print(text, soft_wrap=True)

    warnings.showwarning = show


def main() -> None:
    """Run the command line.

    A user's mistake ends it with exit code 2 and one line that says what to do. SIGTERM and Ctrl-C end it with exit
    codes 143 and 130 and one line that says which results are on disk. `cli/exit_codes.py` has the others.
    """
    try:
        with stopped_by_signals(end_at_once), warnings.catch_warnings():
            _warn_in_one_line()
            code = app(standalone_mode=False, prog_name=_program(), complete_var="_LACONIC_COMPLETE")
        sys.exit(code if isinstance(code, int) else 0)
    except Stopped as stopped:
        line = "; ".join([stopped_line(stopped.number), *getattr(stopped, "__notes__", [])])
        terminal(stderr=True).print(line, soft_wrap=True)
        sys.exit(exit_code(stopped.number))
    except UsageError as error:
        if line := usage_line(error):
            _print_error(line)
        sys.exit(2)
    except (ValueError, OSError, LaconicError) as error:
        _print_error(_words_of(error))
        sys.exit(2)
    except Exception as error:
        place = "" if place_of(error) else f"{inner_place_of(error)}; this is a fault of laconic, please report it"
        _print_error(f"{described(error)}{place}")
        sys.exit(2)


def _program() -> str:
    """Return how the command was called. Shells complete the command itself only."""
    as_command = Path(sys.argv[0]).stem == "laconic" or any(arg.endswith("-completion") for arg in sys.argv[1:])
    return "laconic" if as_command else "python -m laconic"


def _words_of(error: Exception) -> str:
    if isinstance(error, OptionError):
        return error.spelled(Spelling.FLAG)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"  # without Python's "[Errno 2]"
    return str(error)


def _print_error(line: str) -> None:
    # Lines after the first are indented, so that no name with a line end in it forges a message.
    text = Text.assemble(("error: ", "bold red"), visible_lines(line).replace("\n", "\n  "))
    terminal(stderr=True).print(text, soft_wrap=True)
