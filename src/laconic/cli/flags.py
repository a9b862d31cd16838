"""Flags of the commands, made from the groups of options (`laconic.lab.options`)."""

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from laconic.cli.completion import candidates
from laconic.cli.invocation import EveryCommand, invocation_of, load_plugins_of, refuse_ranks
from laconic.errors import LaconicError, Named, OptionError, Spelling, option_named
from laconic.hyperparameters import value_type
from laconic.lab.options import Option, check_options, options_of
from laconic.lab.outputs import refuse_shared_files
from laconic.lab.runs.config_file import line_of_hyperparameter, read_values, with_typed

Command = Callable[..., None]

CONFIG = "config"
"""The option that names a file with the others. A command that has it requires none of them to be typed."""
_TYPED_ONLY = (CONFIG, "resume", "overwrite", "load", "quiet")  # they say what this call is to do, so no file has them
_NUMBERS = (int, float)
_EXAMPLES = {
    "inner_set": "momentum=0.9", "task_set": "noise=2", "lr_of": "sgd=0.1", "as_": "slow=sgd",
    "worker_data": "even=cifar10:PATH",
}  # fmt: skip
_WRITTEN = ("out", "json", "plot")
_READ = ("config", "faults", "data", "test_data", "load", "message_schedule", "trace", "before", "after")


@dataclass(frozen=True)
class Given:
    """A group of options that the command builds itself: it gets the values that were typed, by option."""

    group: type
    without: tuple[str, ...] = ()
    """Options of the group that the command does not have."""


def with_flags(
    *groups: type | Given,
    needs_torch: bool = True,
    before_torch: Callable[..., None] | None = None,
    alone: bool = False,
) -> Callable[[Command], Command]:
    """Give a command a flag for each option of the groups, and those of `EveryCommand`.

    Wrong values are refused before torch, and then the user's own algorithms, are loaded.

    Args:
        *groups: The groups. The command gets the context, and an object of each group, or the typed values of a
            `Given`.
        needs_torch: Whether torch and the user's own algorithms are loaded before the command is called.
        alone: Whether the command is one process, and a launcher must not start it several times.
        before_torch: What is called before torch is loaded, with the arguments of the command.
    """
    given = [group if isinstance(group, Given) else Given(group) for group in (*groups, EveryCommand)]
    fields = [
        [(field, spec) for field, spec in options_of(one.group) if field.name not in one.without] for one in given
    ]

    has_folder = any(field.name == "out" and spec.metavar == "FOLDER" for one in fields for field, spec in one)

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_groups(context: typer.Context, **values: Any) -> None:  # noqa: ANN401
            typed = [
                {
                    field.name: _typed(field, spec, values[field.name])
                    for field, spec in of_group
                    if _is_typed(context, field)
                }
                for of_group in fields
            ]
            for one, of_typed in zip(given, typed, strict=True):
                check_options(one.group, of_typed)
            file = next((of_typed[CONFIG] for of_typed in typed if CONFIG in of_typed), None)
            from_file = {} if file is None else _in_file(file, fields)
            with _file_named(file, from_file.keys() - {name for of_typed in typed for name in of_typed}):
                arguments: list[object] = []
                everything: dict[str, Any] = {}
                for one, group, of_group, of_typed in zip(given, (*groups, EveryCommand), fields, typed, strict=True):
                    names = {field.name for field, _ in of_group}
                    found = with_typed({name: from_file[name] for name in names & from_file.keys()}, of_typed)
                    _refuse_missing(of_group, found)
                    everything |= found
                    arguments.append(found if one is group else one.group(**found))
                everywhere = arguments.pop()
                assert isinstance(everywhere, EveryCommand)
                invocation_of(context).add(everywhere.load, quiet=everywhere.quiet)
                _refuse_shared_files(everything, has_folder=has_folder)
                if alone:
                    refuse_ranks(context)
                if before_torch is not None:
                    before_torch(context, *arguments)
                if needs_torch:
                    load_plugins_of(context)
                command(context, *arguments)

        parameters = [_parameter("context", typer.Context, MISSING)]
        has_config = any(field.name == CONFIG for of_group in fields for field, _ in of_group)
        parameters += [_flag(field, spec, optional=has_config) for of_group in fields for field, spec in of_group]
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


def _flag(field: Field[Any], spec: Option, *, optional: bool) -> inspect.Parameter:
    """Return the parameter of a command that typer makes a flag of.

    Args:
        field: The option.
        spec: Its metadata.
        optional: Whether a required option need not be typed, since it can be in a file.
    """
    kind = value_type(field)
    element = get_args(field.type)[0] if kind is tuple else kind
    annotation: Any = field.type
    default, shown = field.default, spec.shown
    if optional and default is field.default_factory is MISSING:
        annotation, default, shown = annotation | None, None, "none; it must be given, here or in --config"
    if kind is tuple:
        typed_as = str if element in _NUMBERS else element
        annotation = list[typed_as] | None  # type: ignore[valid-type]
        default = MISSING if default is MISSING else None
    elif kind is dict:
        annotation, default = list[str] | None, None
    elif kind in _NUMBERS:  # read by `_typed`, so that a wrong one is refused as all wrong values are
        annotation, default = str | None, default if default in (None, MISSING) else str(default)
    info: dict[str, Any] = {"help": spec.about}
    info["metavar"] = spec.metavar or _metavar(spec, element)
    if shown:
        info["show_default"] = shown
    if (completes := candidates(spec)) is not None:
        info["autocompletion"] = completes
    if spec.positional:
        made: Any = typer.Argument(**info)
    else:
        made = typer.Option(Named(field.name).spelled(Spelling.FLAG), *([spec.short] if spec.short else []), **info)
    return _parameter(field.name, Annotated[annotation, made], default)


def _metavar(spec: Option, kind: type) -> str | None:
    """Return what the help shows for the value of an option that says nothing of it."""
    if spec.positional:
        return None
    if spec.choices or spec.names:
        return "CHOICE" if spec.choices else "NAME"
    return {int: "INTEGER", float: "FLOAT", bool: "", Path: "PATH"}.get(kind, "TEXT")


def _is_typed(context: typer.Context, field: Field[Any]) -> bool:
    source = context.get_parameter_source(field.name)
    return source is not None and source.name == "COMMANDLINE"


def _typed(field: Field[Any], spec: Option, value: Any) -> Any:  # noqa: ANN401
    """Return a typed value as the option's type."""
    kind = value_type(field)
    if kind is tuple:
        return tuple(_number(one, get_args(field.type)[0]) for one in value)
    return _pairs(field.name, spec.metavar, value) if kind is dict else _number(value, kind)


def _number(value: Any, kind: type) -> Any:  # noqa: ANN401
    """Return a text as the number that it is; a text that is none is refused later, with the bound and the way out."""
    try:
        return kind(value) if kind in _NUMBERS else value
    except ValueError:
        return value


def _in_file(file: Path, fields: Sequence[Sequence[tuple[Field[Any], Option]]]) -> dict[str, Any]:
    """Return the values in a file of options. Raises ValueError as `read_values`; OptionError if it is missing."""
    options = [(field, spec) for of_group in fields for field, spec in of_group if field.name not in _TYPED_ONLY]
    hint = f"; did you mean {file / 'config.toml'}?" if (file / "config.toml").is_file() else ""
    with option_named(CONFIG, file, hint):
        return read_values(file, options)


def _refuse_missing(options: Sequence[tuple[Field[Any], Option]], values: Mapping[str, Any]) -> None:
    for field, spec in options:
        if field.name not in values and field.default is field.default_factory is MISSING:
            named = field.name.upper() if spec.positional else Named(field.name)
            raise OptionError(named, " is missing; give it, or a file that has it with ", Named(CONFIG))


def _refuse_shared_files(values: Mapping[str, Any], *, has_folder: bool) -> None:
    """Refuse options that would write the same file, or write what another one reads."""
    files = [
        (name, Path(each))
        for name, value in values.items()
        if name in (*_WRITTEN, *_READ)
        for each in (value if isinstance(value, tuple) else (value,))
        if each is not None and str(each) != "-"
    ]
    folder = values.get("out") if has_folder else None
    writes = [(name, path) for name, path in files if name in _WRITTEN and not (name == "out" and has_folder)]
    refuse_shared_files(writes, [(name, path) for name, path in files if name in _READ], folder)


@contextmanager
def _file_named(file: Path | None, names: Collection[str]) -> Iterator[None]:
    """Name the file in an error about one of its values."""
    try:
        yield
    except OptionError as error:
        found = [part.option for part in error.args if isinstance(part, Named) and part.option in names]
        if not found:
            raise
        raise OptionError(*error.args, f" ({' and '.join(dict.fromkeys(found))} from {file})") from None
    except ValueError as error:
        if "set" not in names or isinstance(error, LaconicError | OSError | UnicodeError):
            raise
        line = "" if file is None else line_of_hyperparameter(file, str(error))
        raise ValueError(f"{error} (the hyper-parameters are from [set] in {file}{line})") from None


def _pairs(option: str, form: str, texts: Sequence[str]) -> dict[str, str]:
    """Return texts of a form such as `KEY=VALUE` as a dictionary."""
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            example = _EXAMPLES.get(option, "compskip.keep=0.3" if form.startswith("NAME.") else "keep=0.3")
            raise OptionError(Named(option, text, quoted=True), f" must have the form {form}, such as {example}")
        if key in found:
            raise OptionError(Named(option, key), f" is given twice: {found[key]!r} and {value!r}")
        found[key] = value
    return found
