"""Hyper-parameters as data: dataclass fields with a range, a unit and a description.

`check_hyperparameters` refuses wrong values at construction, `from_text` builds an object from the texts after `--set`,
`as_settings` is its inverse, and `laconic show` prints the data.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
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

    A default of None means an integer within the range, or None for no value; users type "none".
    """
    spec = Hyperparameter(about=about, within=within, unit=unit, choices=choices, kinds=kinds or {})
    return dataclasses.field(default=default, metadata={"hyperparameter": spec})


def hyperparameters_of(cls: type) -> list[tuple[dataclasses.Field[Any], Hyperparameter]]:
    """Return the hyper-parameter fields of a dataclass, in order, with their metadata."""
    return [(f, f.metadata["hyperparameter"]) for f in dataclasses.fields(cls) if "hyperparameter" in f.metadata]


def near_misses(word: str, known: list[str]) -> str:
    """Return '; did you mean ...?' for a misspelled word, or an empty text if no known word is close."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _inside(value: float, within: str) -> bool:
    low, high = (float(end) for end in within[1:-1].split(","))
    above = value >= low if within[0] == "[" else value > low
    below = value <= high if within[-1] == "]" else value < high
    return above and below and not math.isnan(value)


def check_hyperparameters(owner: Any, name: str) -> None:  # noqa: ANN401 - any dataclass
    """Check types and ranges of all hyper-parameters of `owner`.

    Raises:
        TypeError: for a wrong type.
        ValueError: for a value outside its range; the message has name, value and bound.
    """
    for field, spec in hyperparameters_of(type(owner)):
        value = getattr(owner, field.name)
        where = f"{name}: {field.name}={value!r}"
        if spec.kinds:
            if type(value) not in spec.kinds.values():  # a subclass has no name that a user could type
                raise TypeError(f"{where} must be one of {', '.join(sorted(spec.kinds))}")
        elif spec.choices:
            if value not in spec.choices:
                raise ValueError(f"{where} must be one of {', '.join(spec.choices)}")
        elif spec.within:
            is_integer = field.default is None or (
                isinstance(field.default, int) and not isinstance(field.default, bool)
            )
            if value is None and field.default is None:
                continue  # no value
            if isinstance(value, bool) or not isinstance(value, int if is_integer else (int, float)):
                what = f"{'a whole number' if is_integer else 'a number'} in {spec.within}"
                raise TypeError(f"{where} must be {what}{', or None' if field.default is None else ''}")
            if not _inside(value, spec.within):
                unit = f" ({spec.unit})" if spec.unit else ""
                raise ValueError(f"{where} must be in {spec.within}{unit}; the default is {field.default!r}")
        elif isinstance(field.default, (str, bool)) and not isinstance(value, type(field.default)):
            what = "True or False" if isinstance(field.default, bool) else "a text"
            raise TypeError(f"{where} must be {what}; the default is {field.default!r}")


def _from_word(default: Any, spec: Hyperparameter, text: str, where: str) -> Any:  # noqa: ANN401
    if spec.kinds:
        if text not in spec.kinds:
            raise ValueError(
                f"{where} must be one of {', '.join(sorted(spec.kinds))}{near_misses(text, list(spec.kinds))}"
            )
        kind = spec.kinds[text]
        return default if type(default) is kind else kind()  # the field's default may differ from that of the class
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{where} must be true or false")
        return text.lower() == "true"
    if default is None and text.lower() == "none":
        return None
    if default is None or isinstance(default, (int, float)):
        number: type[int] | type[float] = float if isinstance(default, float) else int
        try:
            return number(text)
        except ValueError:
            what = "a whole number" if number is int else "a number"
            bound = f" in {spec.within}" if spec.within else ""
            raise ValueError(f"{where} must be {what}{bound}{', or none' if default is None else ''}") from None
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
            field, known_spec = spec[prefix]
            chosen[prefix] = _from_word(field.default, known_spec, text, f"{name}: {key}={text!r}")
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
