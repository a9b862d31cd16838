"""Mistakes in the form of a command line, in one line like all other errors.

Typer's own messages take six lines in a box, and name neither the value that was typed nor the form that is wanted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand

from laconic.errors import OptionError
from laconic.hyperparameters import near_misses

UsageError: Any = typer.BadParameter.__base__
"""Typer's base class of all mistakes in the form of a command line; it has no public name."""


class OptionsCommand(TyperCommand):
    """A command that refuses what it would drop: an option's first value of two, and a word too many."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - a class that typer does not name
        """Parse the arguments.

        Raises:
            OptionError: An option with one value is given twice, or a word is no option's and no argument.
        """
        with errors_of(ctx):
            if not ctx.resilient_parsing:
                _, rest, found = self.make_parser(ctx).parse_args(list(args))
                if not any(parameter.is_eager for parameter in found):  # the help is asked for
                    _refuse_repeated(found, args)
                    _refuse_rest(rest, found, self.get_params(ctx), ctx.command_path)
            return super().parse_args(ctx, args)

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401 - classes that typer does not name
        """Return the options and arguments, as the help shows them."""
        return without_types(super().get_params(ctx))


@contextmanager
def errors_of(ctx: Any) -> Iterator[None]:  # noqa: ANN401
    """Let mistakes that are found within know the command."""
    try:
        yield
    except UsageError as error:
        error.ctx = error.ctx or ctx
        raise


def without_types(parameters: Any) -> Any:  # noqa: ANN401
    """Return parameters without what typer shows of Python's types: `<bool>` of flags, `<str>` of arguments."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = _no_type
        elif parameter.is_flag:
            parameter.metavar = ""
    return parameters


def _no_type(**_: object) -> None:
    return None


def _refuse_rest(rest: list[str], found: list[Any], parameters: list[Any], path: str) -> None:
    if rest:
        method = next((one for one in parameters if one.name == "algorithm" and one not in found), None)
        remedy = f"give the method as -a {rest[0]}" if method is not None else f"`{path} --help` shows the form"
        raise OptionError(f"unexpected argument {rest[0]!r}; {remedy}")


def _refuse_repeated(found: list[Any], args: list[str]) -> None:
    for parameter in found:
        single = parameter.param_type_name == "option" and not (parameter.multiple or parameter.is_flag)
        if single and found.count(parameter) > 1:
            name = _longest(parameter.opts)
            values = ", ".join(_values(args, parameter.opts))
            raise OptionError(f"{name} is given {_times(found.count(parameter))} ({values}); it takes one value")


def _times(number: int) -> str:
    return "twice" if number == 2 else f"{number} times"


def _values(args: list[str], spellings: list[str]) -> list[str]:
    """Return the values behind an option, as they were typed."""
    values = []
    for arg, behind in zip(args, [*args[1:], ""], strict=True):
        name, sign, value = arg.partition("=")
        if name in spellings:
            values.append(value if sign else behind)
        elif arg[:2] in spellings and not arg.startswith("--"):
            values.append(arg[2:])
    return values


def _longest(spellings: list[str]) -> str:
    return max(spellings, key=len)


def usage_line(error: Any) -> str:  # noqa: ANN401 - a class that typer does not name
    """Return what is wrong, and the way out, in one line; an empty text if the help was printed instead."""
    kind, ctx = type(error).__name__, error.ctx
    if kind == "NoArgsIsHelpError":
        return ""
    help_of = f"`{ctx.command_path} --help`" if ctx is not None else "`laconic --help`"
    if kind == "NoSuchOption":
        return _unknown_option(error.option_name, ctx, help_of)
    parameter = getattr(error, "param", None)
    if kind == "MissingParameter" and parameter is not None:
        about = f" ({_sentence(parameter.help)})" if parameter.help else ""
        option = parameter.param_type_name == "option"
        name = f"{_name_of(parameter)} {metavar_of(parameter)}" if option else _name_of(parameter)
        return f"{name} is missing{about}; see {help_of}"
    if kind == "BadOptionUsage":
        return _no_value(error, ctx, help_of)
    if parameter is not None:
        return f"{_name_of(parameter)}: {_sentence(error.message)}; see {help_of}"
    return f"{_sentence(error.format_message())}; see {help_of}"


def _unknown_option(name: str, ctx: Any, help_of: str) -> str:  # noqa: ANN401
    known = [one for parameter in ctx.command.get_params(ctx) for one in parameter.opts if one.startswith("-")]
    long = [one for one in known if one.startswith("--")]
    if hasattr(ctx.command, "commands"):
        near = near_misses(name, long, closeness=0.7)
        return f"unknown option {name}{near or f'; options of a command stand behind its name; see {help_of}'}"
    near = near_misses(name, long)
    return f"unknown option {name}{near or f'; {help_of} lists the options'}"


def _no_value(error: Any, ctx: Any, help_of: str) -> str:  # noqa: ANN401
    for parameter in ctx.command.get_params(ctx):
        if error.option_name in parameter.opts:
            if parameter.is_flag:
                return f"{error.option_name} takes no value; see {help_of}"
            return f"{error.option_name} needs a value: {error.option_name} {metavar_of(parameter)}; see {help_of}"
    return f"{_sentence(error.format_message())}; see {help_of}"


def metavar_of(parameter: Any) -> str:  # noqa: ANN401
    """Return what the help shows for the value of an option."""
    return str(parameter.metavar or "VALUE")


def _name_of(parameter: Any) -> str:  # noqa: ANN401
    if parameter.param_type_name == "option":
        return _longest(parameter.opts)
    return str(parameter.metavar or parameter.name.upper())


def _sentence(text: str) -> str:
    """Return a message of typer's as the project writes them: a small first letter, no full stop."""
    text = " ".join(text.split()).rstrip(".")
    return text[:1].lower() + text[1:]
