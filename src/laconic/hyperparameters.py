"""Hyper-parameters as data: dataclass fields with a range, a unit and a description.

`check_hyperparameters` refuses wrong values at construction, `from_text` builds an object from the texts after `--set`,
`as_settings` is its inverse, and `laconic show` prints the data.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """The metadata of one hyper-parameter; its default is that of the field."""

    about: str
    """Description, which `laconic show` prints."""
    within: str = ""
    """An interval such as "(0, 1]"; "inf" is allowed as a bound."""
    unit: str = ""
    choices: tuple[str, ...] = ()
    """The texts that are allowed."""
    kinds: Mapping[str, type] = dataclasses.field(default_factory=dict)
    """The classes whose instances are allowed, by name."""


def hyperparameter(
    default: Any,  # noqa: ANN401 - the field's annotation is the type
    about: str,
    *,
    within: str = "",
    unit: str = "",
    choices: tuple[str, ...] = (),
    kinds: Mapping[str, type] | None = None,
) -> Any:  # noqa: ANN401
    """Return a dataclass field with the metadata of a hyper-parameter.

    A default of None means a value of the field's type, or None for no value; users type "none".
    """
    spec = Hyperparameter(about=about, within=within, unit=unit, choices=choices, kinds=kinds or {})
    return dataclasses.field(default=default, metadata={"hyperparameter": spec})


def hyperparameters_of(cls: type) -> list[tuple[dataclasses.Field[Any], Hyperparameter]]:
    """Return the hyper-parameter fields of a dataclass, in order, with their metadata."""
    return [(f, f.metadata["hyperparameter"]) for f in dataclasses.fields(cls) if "hyperparameter" in f.metadata]


MAX_NAME = 64
"""The most characters of a name that a user types and files are called by."""


def is_plain_name(name: str) -> bool:
    """Return whether a name is letters, digits, - and _, of any script, and does not begin with -."""
    return len(name) <= MAX_NAME and re.fullmatch(r"\w[\w-]*", name) is not None


def near_misses(word: str, known: list[str], *, closeness: float = 0.5) -> str:
    """Return '; did you mean ...?' for a misspelled word, or an empty text if no known word is close.

    Capitals, and underscores for hyphens, make no difference.

    Args:
        word: What was typed.
        known: What could have been meant.
        closeness: In 0 .. 1, how much a known word must share with it.
    """
    forms: dict[str, list[str]] = {}
    for name in known:
        forms.setdefault(_form(name), []).append(name)
    near = {form: difflib.SequenceMatcher(None, _form(word), form).ratio() for form in forms}
    bound = max(closeness, max(near.values(), default=0.0) - 0.15)
    close = [form for form in sorted(near, key=near.__getitem__, reverse=True) if near[form] >= bound]
    if not close and len(word) > 2:
        close = [form for form in forms if form.startswith(_form(word))]
    names = [name for form in close[: 1 if _form(word) in forms else 3] for name in forms[form]]
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _form(name: str) -> str:
    """Return a name as it is compared with what was typed."""
    return name.casefold().replace("_", "-")


def value_type(field: dataclasses.Field[Any]) -> type:
    """Return the type of a field's values, None and words aside: of `float | Literal["theory"] | None` it is float."""
    declared = field.type
    if typing.get_origin(declared) in (types.UnionType, typing.Union):  # with a Literal it is the latter
        (declared,) = (one for one in typing.get_args(declared) if one is not types.NoneType and not words_of(one))
    declared = typing.get_origin(declared) or declared
    if isinstance(declared, type):
        return declared
    return int if field.default is None else type(field.default)  # annotations of this file are texts


def words_of(declared: Any) -> tuple[str, ...]:  # noqa: ANN401 - a type
    """Return the texts that may stand for a value: of `float | Literal["theory"] | None` it is ("theory",)."""
    if typing.get_origin(declared) is typing.Literal:
        return typing.get_args(declared)
    return tuple(word for one in typing.get_args(declared) for word in words_of(one))


def inside(value: float, within: str) -> bool:
    """Return whether a number is in an interval such as "(0, 1]". NaN is in none."""
    low, high = (float(end) for end in within[1:-1].split(","))
    above = value >= low if within[0] == "[" else value > low
    below = value <= high if within[-1] == "]" else value < high
    return above and below and not math.isnan(value)


def _what(kind: type, spec: Hyperparameter, *, none: str = "") -> str:
    """Return what a value must be: "a whole number in [1, 9], or None"."""
    bound = f" in {spec.within}" if spec.within else ""
    return f"{'a whole number' if kind is int else 'a number'}{bound}{f', or {none}' if none else ''}"


def check_hyperparameters(owner: Any, name: str) -> None:  # noqa: ANN401 - any dataclass
    """Check types and ranges of all hyper-parameters of `owner`.

    Raises:
        TypeError: for a wrong type.
        ValueError: for a value outside its range; the message has name, value and bound.
    """
    for field, spec in hyperparameters_of(type(owner)):
        _check_value(owner, field, spec, name)


def _check_value(owner: Any, field: dataclasses.Field[Any], spec: Hyperparameter, name: str) -> None:  # noqa: ANN401
    value = getattr(owner, field.name)
    where, kind = f"{name}: {field.name}={value!r}", value_type(field)
    if value is None and field.default is None:
        return  # no value
    if spec.kinds:
        if type(value) not in spec.kinds.values():  # a subclass has no name that a user could type
            raise TypeError(f"{where} must be one of {', '.join(sorted(spec.kinds))}")
    elif spec.choices:
        if value not in spec.choices:
            near = near_misses(value, list(spec.choices)) if isinstance(value, str) else ""
            raise ValueError(f"{where} must be one of {', '.join(spec.choices)}{near}")
    elif kind in (int, float):
        if not is_number(value, kind):
            raise TypeError(f"{where} must be {_what(kind, spec, none='None' if field.default is None else '')}")
        make_plain(owner, [field.name], name)
        if spec.within and not inside(value, spec.within):
            unit = f" ({spec.unit})" if spec.unit else ""
            raise ValueError(f"{where} must be in {spec.within}{unit}; the default is {field.default!r}")
    elif kind in (str, bool) and not isinstance(value, kind):
        what = "True or False" if kind is bool else "a text"
        raise TypeError(f"{where} must be {what}; the default is {field.default!r}")


def is_number(value: object, kind: type) -> bool:
    """Return whether a value is an int, or for float an int or a float; numpy's are, True and False are not."""
    return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)


def plain_number(value: object, what: str, kind: type = float) -> Any:  # noqa: ANN401 - int for `int`, else int or float
    """Return a number as Python's own, whatever library it is from. Raises TypeError, beginning with `what`."""
    if not is_number(value, kind):
        raise TypeError(f"{what}={value!r:.80} must be a {'whole number' if kind is int else 'number'}")
    return int(value) if isinstance(value, Integral) else float(value)  # type: ignore[arg-type]


def make_plain(owner: Any, names: Iterable[str], of: str, kind: type = float) -> None:  # noqa: ANN401 - any dataclass
    """Make fields of a dataclass, also of a frozen one, Python's own numbers. Raises TypeError for what is none."""
    for name in names:
        object.__setattr__(owner, name, plain_number(getattr(owner, name), f"{of}: {name}", kind))


def line_of(owner: Any) -> str:  # noqa: ANN401 - any dataclass
    """Return the line that makes an equal object: its class, and the fields that are not at their defaults."""
    parts = []
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        made = dataclasses.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()
        if value != (field.default if made is dataclasses.MISSING else made):
            parts.append(f"{field.name}={value!r}")
    return f"{type(owner).__name__}({', '.join(parts)})"


def _from_word(field: dataclasses.Field[Any], spec: Hyperparameter, text: str, where: str) -> Any:  # noqa: ANN401
    default, kind = field.default, value_type(field)
    if spec.kinds:
        if text not in spec.kinds:
            raise ValueError(
                f"{where} must be one of {', '.join(sorted(spec.kinds))}{near_misses(text, list(spec.kinds))}"
            )
        plugged = spec.kinds[text]
        return default if type(default) is plugged else plugged()  # the field's default may differ from the class's
    if default is None and text.lower() == "none":
        return None
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{where} must be true or false")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            none = "none" if default is None else ""
            raise ValueError(f"{where} must be {_what(kind, spec, none=none)}") from None
    return text


def from_text(cls: type[T], settings: Mapping[str, str], name: str) -> T:
    """Build a dataclass from `key=value` texts. `skip.probability=0.2` sets a field of the object in the field `skip`.

    Raises:
        ValueError: for an unknown key, with near misses.
        TypeError: as `check_hyperparameters` does, which also raises ValueError.
    """
    spec = {field.name: (field, known) for field, known in hyperparameters_of(cls)}
    chosen: dict[str, Any] = {}
    inner: dict[str, dict[str, str]] = {}
    for key, text in settings.items():
        prefix, dot, rest = key.partition(".")
        if prefix not in spec or (dot and not (rest and spec[prefix][1].kinds)):
            known = list(spec)
            raise ValueError(
                f"{name}: unknown key {key!r}; known: {', '.join(known) or 'none'}{near_misses(key, known)}"
            )
        if rest:
            inner.setdefault(prefix, {})[rest] = text
        else:
            chosen[prefix] = _from_word(*spec[prefix], text, f"{name}: {key}={text!r}")
    for prefix, below in inner.items():
        plugged = chosen.get(prefix, spec[prefix][0].default)
        start = as_settings(plugged) | below
        try:
            chosen[prefix] = from_text(type(plugged), start, f"{name}: {prefix}")
        except ValueError as error:
            where = f"{name}: {prefix}"
            raise ValueError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    return cls(**chosen)


def as_settings(owner: Any) -> dict[str, str]:  # noqa: ANN401 - any dataclass
    """Return the texts from which `from_text` builds an equal object."""
    settings: dict[str, str] = {}
    for field, spec in hyperparameters_of(type(owner)):
        value = getattr(owner, field.name)
        if spec.kinds:
            word = next(word for word, kind in spec.kinds.items() if type(value) is kind)
            settings[field.name] = word
            settings |= {f"{field.name}.{key}": text for key, text in as_settings(value).items()}
        else:
            settings[field.name] = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return settings
