"""Options as data: one dataclass field is a flag of the command line, a key of a TOML file and an argument in Python.

A field of a group of options is declared with `option`. From the declaration are made the flag and its help
(`laconic.cli.flags`), the check of a value, and the reading of a file. The name of the flag is that of the field.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from laconic.errors import Named, OptionError
from laconic.hyperparameters import (
    Hyperparameter,
    hyperparameters_of,
    inside,
    is_number,
    near_misses,
    value_type,
    words_of,
)
from laconic.lab.own_functions import FORM, check_form, is_own

PURE_NUMBER = "pure number"
"""The unit of a number without a unit: a rate, a share, a seed."""


@dataclasses.dataclass(frozen=True)
class Option(Hyperparameter):
    """The metadata of one option. `about` is its help, and its unit a word of the help or `PURE_NUMBER`."""

    metavar: str = ""
    """What the help shows for the value; empty for its type."""
    short: str = ""
    """A second flag of one letter, such as "-a"."""
    positional: bool = False
    """Whether it is given without a flag."""
    shown: str = ""
    """What the help shows as the default of None, or in place of a long default."""
    hint: str = ""
    """The way out, after the bound in a message."""
    own: bool = False
    """Whether a `module:function` of the user's own may stand for one of the choices."""
    names: str = ""
    """What the value names, or several with commas between them: "methods". A shell completes them."""
    reads: Callable[[Any], object] | None = None
    """Reads a text or looks at a path. It raises ValueError("must be ...") if it is not valid."""


def option(
    default: Any,  # noqa: ANN401 - the field's annotation is the type
    about: str,
    *,
    within: str = "",
    unit: str = "",
    choices: tuple[str, ...] = (),
    metavar: str = "",
    short: str = "",
    positional: bool = False,
    shown: str = "",
    hint: str = "",
    own: bool = False,
    names: str = "",
    reads: Callable[[Any], object] | None = None,
) -> Any:  # noqa: ANN401
    """Return a dataclass field with the metadata of an option. A default of `...` means that it must be given."""
    spec = Option(
        about=about, within=within, unit=unit, choices=choices, metavar=metavar, short=short, positional=positional,
        shown=shown, hint=hint, own=own, names=names, reads=reads,
    )  # fmt: skip
    metadata = {"hyperparameter": spec}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def hyperparameters_by_name() -> Any:  # noqa: ANN401 - a field
    """Return the option `set` of a command that takes several algorithms."""
    return option({}, "Set one hyper-parameter of one method. Can be given several times.", metavar="NAME.KEY=VALUE")


def file_of_kind(*endings: str) -> Callable[[Path], None]:
    """Return a check of a file to write, which says by its ending what is written: one of these, large or small."""

    def check(path: Path) -> None:
        if path.suffix.lower() not in endings:
            raise ValueError(f"the ending must be one of {', '.join(endings)}")

    return check


def file_to_write(*endings: str) -> Callable[[Path], None]:
    """Return a check of a file to write: that its folder exists, and its ending is one of these, if there are any."""

    def check(path: Path) -> None:
        if endings:
            file_of_kind(*endings)(path)
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent}; make it, or write elsewhere")

    return check


def options_of(group: type) -> list[tuple[dataclasses.Field[Any], Option]]:
    """Return the options of a group, in order, with their metadata."""
    found = [(field, spec) for field, spec in hyperparameters_of(group) if isinstance(spec, Option)]
    assert not any(isinstance(field.type, str) for field, _ in found), f"{group}: annotations must not be texts"
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptionGroup:
    """The base class of a group of options, which checks each of them."""

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            OptionError: One is wrong. The message has its name, its value, the bound and the way out.
        """
        check_options(type(self), vars(self))


def listed(names: Iterable[str]) -> str:
    """Return "a, b or c"."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def check_options(group: type, values: Mapping[str, Any]) -> None:
    """Check the types and ranges of values, by option. Options without a value are not checked.

    Raises:
        OptionError: A value is wrong. The message has its name, the value, the bound and the way out.
    """
    for field, spec in options_of(group):
        if field.name in values:
            check_option(field, spec, values[field.name])


def check_option(field: dataclasses.Field[Any], spec: Option, value: Any) -> None:  # noqa: ANN401
    """Check the type and range of one option's value. Raises OptionError as `check_options`."""
    kind = value_type(field)
    if (value is None and field.default is None) or value in words_of(field.type):
        return
    if kind is tuple:
        if not isinstance(value, tuple):
            raise _refusal(field, spec, value, f"must be a tuple{_element_hint(field)}")
        for one in value:
            _check_value(field, spec, one, get_args(field.type)[0])
    elif kind is dict:
        if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
            raise _refusal(field, spec, value, "must be a table of texts")
    else:
        _check_value(field, spec, value, kind)


def _element_hint(field: dataclasses.Field[Any]) -> str:
    return f" of {get_args(field.type)[0].__name__}"


def _check_value(field: dataclasses.Field[Any], spec: Option, value: Any, kind: type) -> None:  # noqa: ANN401
    if spec.own and isinstance(value, str) and is_own(value):
        try:
            check_form(value)
        except ValueError as error:
            raise OptionError(Named(field.name, value, quoted=True), f" {error}") from None
    elif spec.choices:
        if value not in spec.choices:
            near = near_misses(value, list(spec.choices)) if isinstance(value, str) else ""
            own = f", or {FORM} of your own" if spec.own else ""
            raise _refusal(field, spec, value, f"must be one of {', '.join(spec.choices)}{own}{near}")
    elif kind in (int, float):
        if not is_number(value, kind):
            what = "a whole number" if kind is int else "a number"
            raise _refusal(field, spec, value, f"must be {what}{f', {bound_text(spec, kind)}' if spec.within else ''}")
        if spec.within and not inside(value, spec.within):
            raise _refusal(field, spec, value, f"must be {bound_text(spec, kind)}")
    elif not isinstance(value, kind):
        what = {bool: "true or false", str: "a text"}.get(kind, f"a {kind.__name__}")
        raise _refusal(field, spec, value, f"must be {what}")
    elif spec.reads is not None and value is not None:
        try:
            spec.reads(value)
        except ValueError as error:
            if kind is Path:
                raise OptionError(Named(field.name, value), f": {error}") from None
            if repr(value) in str(error):
                raise OptionError(Named(field.name), f": {error}") from None
            raise OptionError(Named(field.name, value, quoted=True), f" {error}") from None


def _refusal(field: dataclasses.Field[Any], spec: Option, value: object, complaint: str) -> OptionError:
    remedy = f"; {spec.hint}" if spec.hint else ""
    return OptionError(Named(field.name, value, quoted=True), f" {complaint}{remedy}")


def bound_text(spec: Option, kind: type) -> str:
    """Return an interval in words: "at least 1", "above 0 seconds", "in 2 .. 64", "in (0, 1]"."""
    low, high = (end.strip() for end in spec.within[1:-1].split(","))
    unit = "" if spec.unit == PURE_NUMBER else f" {spec.unit}"
    if high == "inf":
        finite = " and finite" if kind is float else ""
        return f"{'at least' if spec.within[0] == '[' else 'above'} {low}{unit if kind is float else ''}{finite}"
    return f"in {low} .. {high}" if kind is int else f"in {spec.within}{unit}"
