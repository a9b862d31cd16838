"""The options that every command has, and what was given of them."""

from dataclasses import dataclass, field
from typing import Annotated

import typer

from laconic.cli.algorithm_files import plugin_file
from laconic.cli.lazy import LazyGroup, load_torch
from laconic.errors import LaunchError
from laconic.lab.options import OptionGroup, option
from laconic.lab.processes.launcher import origin, started_as_rank

LOAD = "Load a Python file with algorithms of your own. Can be given several times."
QUIET = "Print the result alone: no progress and no notes."


@dataclass(frozen=True, kw_only=True)
class EveryCommand(OptionGroup):
    """The options of every command. They may stand before or behind its name."""

    load: tuple[str, ...] = option((), LOAD, metavar="FILE")
    quiet: bool = option(False, QUIET, short="-q")


@dataclass
class Invocation:
    """What was given of the options of every command, wherever it stands."""

    plugins: list[str] = field(default_factory=list)
    """Files with algorithms."""
    quiet: bool = False

    def add(self, plugins: "list[str] | tuple[str, ...]", *, quiet: bool) -> None:
        """Add what was given at one more place.

        Raises:
            OptionError: A file of algorithms does not exist, or is no Python file.
        """
        for text in plugins:
            plugin_file(text)
        self.plugins += plugins
        self.quiet |= quiet


def invocation_of(context: typer.Context) -> Invocation:
    """Return what was given so far of the options of every command."""
    root = context.find_root()
    if root.obj is None:
        root.obj = Invocation()
    assert isinstance(root.obj, Invocation)
    return root.obj


def plugins_of(context: typer.Context) -> tuple[str, ...]:
    """Return the files with algorithms that were given."""
    return tuple(invocation_of(context).plugins)


def group_of_commands(name: str, commands: type[LazyGroup], about: str) -> typer.Typer:
    """Return a group of commands, which has the options of every command too.

    Args:
        name: Its name.
        commands: The commands in it.
        about: Its help.
    """
    group = typer.Typer(name=name, cls=commands, help=about, no_args_is_help=True)

    @group.callback()
    def options(
        context: typer.Context,
        load: Annotated[list[str] | None, typer.Option("--load", metavar="FILE", help=LOAD)] = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help=QUIET)] = False,
    ) -> None:
        invocation_of(context).add(load or [], quiet=quiet)

    return group


def is_quiet(context: typer.Context) -> bool:
    """Return whether only the result is printed."""
    return invocation_of(context).quiet


def refuse_ranks(context: typer.Context) -> None:
    """Refuse to be one of several processes, which would all do the same.

    Raises:
        LaunchError: A launcher has started this process as one of several.
    """
    if started_as_rank():
        raise LaunchError(
            f"{context.command_path} is one process, and {origin()} has started it several times; start it alone"
        )


def load_plugins_of(context: typer.Context) -> None:
    """Import torch, and the files with algorithms that were given."""
    load_torch()
    if plugins := plugins_of(context):
        from laconic.contract import load_plugins

        load_plugins(plugins)
