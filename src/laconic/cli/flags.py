"""Flags of the commands, made from the groups of options (`laconic.lab.options`)."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, dataclass
from typing import Annotated, Any, get_args

import typer

from laconic.cli.lazy import load_torch
from laconic.errors import Named, OptionError
from laconic.hyperparameters import value_type
from laconic.lab.options import Option, check_options, options_of

Command = Callable[..., None]


@dataclass(frozen=True)
class Given:
    """A group of options that the command builds itself: it gets the values that were typed, by option."""

    group: type
    without: tuple[str, ...] = ()
    """Options of the group that the command does not have."""


def with_flags(*groups: type | Given, needs_torch: bool = True) -> Callable[[Command], Command]:
    """Give a command a flag for each option of the groups.

    Wrong values are refused before torch is loaded.

    Args:
        *groups: The groups. The command gets the context, and an object of each group, or the typed values of a
            `Given`.
        needs_torch: Whether torch is loaded before the command is called.
    """
    given = [group if isinstance(group, Given) else Given(group) for group in groups]
    fields = [
        [(field, spec) for field, spec in options_of(one.group) if field.name not in one.without] for one in given
    ]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_groups(context: typer.Context, **values: Any) -> None:  # noqa: ANN401
            arguments: list[object] = []
            for one, group, of_group in zip(given, groups, fields, strict=True):
                typed = {
                    field.name: _typed(field, values[field.name]) for field, _ in of_group if _is_typed(context, field)
                }
                if one is group:
                    check_options(one.group, typed)
                arguments.append(typed if one is group else one.group(**typed))
            if needs_torch:
                load_torch()
            command(context, *arguments)

        parameters = [_parameter("context", typer.Context, MISSING)]
        parameters += [_flag(field, spec) for of_group in fields for field, spec in of_group]
        with_groups.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        with_groups.__annotations__ = {one.name: one.annotation for one in parameters}
        with_groups.options = [  # type: ignore[attr-defined]
            (one.group, *option) for one, of_group in zip(given, fields, strict=True) for option in of_group
        ]
        return with_groups

    return decorate


def _parameter(name: str, annotation: object, default: object) -> inspect.Parameter:
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=empty if default is MISSING else default, annotation=annotation
    )


def _flag(field: Field[Any], spec: Option) -> inspect.Parameter:
    """Return the parameter of a command that typer makes a flag of."""
    kind = value_type(field)
    annotation, default = field.type, field.default
    if kind is tuple:
        element = get_args(field.type)[0]
        annotation = list[element] | None  # type: ignore[valid-type]
        default = MISSING if default is MISSING else None
    elif kind is dict:
        annotation, default = list[str] | None, None
    info: dict[str, Any] = {"help": spec.about}
    if spec.metavar:
        info["metavar"] = spec.metavar
    if spec.shown:
        info["show_default"] = spec.shown
    if spec.positional:
        made: Any = typer.Argument(**info)
    else:
        made = typer.Option(f"--{field.name.replace('_', '-')}", *([spec.short] if spec.short else []), **info)
    return _parameter(field.name, Annotated[annotation, made], default)


def _is_typed(context: typer.Context, field: Field[Any]) -> bool:
    source = context.get_parameter_source(field.name)
    return source is not None and source.name == "COMMANDLINE"


def _typed(field: Field[Any], value: Any) -> Any:  # noqa: ANN401
    """Return a typed value as the option's type."""
    kind = value_type(field)
    if kind is tuple:
        return tuple(value)
    return _pairs(field.name, value) if kind is dict else value


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """Return `KEY=VALUE` texts as a dictionary."""
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            raise OptionError(Named(option, text, quoted=True), " must have the form KEY=VALUE, such as keep=0.3")
        if key in found:
            raise OptionError(Named(option, key), f" is given twice: {found[key]!r} and {value!r}")
        found[key] = value
    return found
