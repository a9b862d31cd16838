"""Commands that are imported when they are called, so that help, typing errors and `laconic list` load no torch.

A command's file imports at its top only what its options and help need. Its functions import the rest.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from laconic.cli.usage import OptionsCommand, errors_of, without_types
from laconic.errors import OptionError
from laconic.hyperparameters import near_misses
from laconic.lab.processes.stopping import ended_at_once_by_signals


@dataclass(frozen=True)
class LazyCommand:
    """One command of a group."""

    name: str
    module: str
    function: str
    about: str
    """The first line of the function's docstring, for the help of the group."""


class LazyGroup(TyperGroup):
    """A group that holds the names and help lines of its commands, and imports only the command that is called."""

    lazy_commands: ClassVar[tuple[LazyCommand, ...]] = ()
    """The commands in the order in which the help lists them."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - typer's own
        super().__init__(**options)
        in_help = {spec.name: TyperCommand(spec.name, help=spec.about) for spec in self.lazy_commands}
        self.commands = {**in_help, **self.commands}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - a class that typer does not name
        """Parse the options before the name of the command."""
        with errors_of(ctx):
            return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - classes that typer does not name
        """Return the options, as the help shows them."""
        return without_types(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - classes that typer does not name
        """Find and import the command that is called.

        Raises:
            OptionError: There is no such command.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise self._unknown(ctx.command_path, args[0])
        name, command, rest = super().resolve_command(ctx, args)
        spec = next((spec for spec in self.lazy_commands if spec.name == name), None)
        return name, command if spec is None else command_of(spec), rest

    def _unknown(self, path: str, name: str) -> OptionError:
        near = near_misses(name, list(self.commands))
        if not near:
            groups = [(group, getattr(command, "commands", {})) for group, command in self.commands.items()]
            near = next((f"; did you mean {group} {name}?" for group, inside in groups if name in inside), "")
        return OptionError(f"unknown command {name!r}{near or f'; `{path} --help` lists the commands'}")


def command_of(spec: LazyCommand) -> Any:  # noqa: ANN401 - a class that typer does not name
    """Import a command."""
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(spec.name, cls=OptionsCommand)(getattr(import_module(spec.module), spec.function))
    return typer.main.get_command(app)


def load_torch() -> None:
    """Import torch. This takes seconds; a signal during the import ends the process at once, without a traceback."""
    if "torch" in sys.modules:
        return
    with ended_at_once_by_signals():
        import_module("torch")
