"""Options in a TOML file: the `config.toml` that a run has written, or a file of one's own for `--config`.

Keys are the options. Values have TOML's types; a quantity with a unit is a text, as on the command line. Importing this
file loads no torch.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field
from pathlib import Path
from typing import Any, TypeVar, get_args

from laconic.errors import Named, OptionError, Spelling
from laconic.hyperparameters import near_misses, value_type
from laconic.lab.options import Option, check_option, options_of
from laconic.lab.runs.config_lines import Key, line_of, line_of_named

T = TypeVar("T")


def read_values(path: Path, options: Sequence[tuple[Field[Any], Option]]) -> dict[str, Any]:
    """Return the values in a file, by option, as the options have them: checked one by one.

    Args:
        path: The file.
        options: The options that may be keys, each with its metadata.

    Raises:
        ValueError: The file is not TOML, or a key is unknown or has a wrong value. The message names the file, and the
            key or the line.
        OSError: The file cannot be read.
    """
    table = read_table(path)
    known = {field.name.rstrip("_"): (field, spec) for field, spec in options}
    for key in table:
        if key not in known:
            raise unknown_key(path, known, key)
    return {known[key][0].name: read_value(path, *known[key], value, key) for key, value in table.items()}


def line_of_hyperparameter(path: Path, message: str) -> str:
    """Return ", line 3" for the key of [set] that a message is about, or of a method's table in it."""
    table = read_table(path).get("set", {})
    inner: list[tuple[tuple[str, ...], Any]] = [
        (("set", name), below) for name, below in table.items() if isinstance(below, Mapping)
    ]
    of_methods = [(keys, below) for keys, below in inner if message.startswith(f"{keys[-1]}: ")]
    return line_of_named(path, message, of_methods or [(("set",), table)])


def unknown_key(path: Path, known: Iterable[str], *keys: Key) -> ValueError:
    """Return the error for a key that is not among the known ones, with its line and near misses."""
    names, word = list(known), str(keys[-1])
    return ValueError(
        f"{path}{line_of(path, *keys)}: unknown key {word!r}; known: {', '.join(names)}{near_misses(word, names)}"
    )


def read_value(path: Path, field: Field[Any], spec: Option, value: Any, *keys: Key) -> Any:  # noqa: ANN401
    """Return a value in a file as the option has it.

    Args:
        path: The file.
        field: The option.
        spec: Its metadata.
        value: The value of TOML.
        *keys: What leads to it in the file.

    Raises:
        ValueError: It is wrong. The message names the file and the line.
    """
    try:
        read = _as_option(field, spec, value)
        check_option(field, spec, read)
    except _InTableError as error:
        raise ValueError(f"{path}{line_of(path, *keys, *error.keys)}: {error}") from None
    except OptionError as error:
        raise ValueError(f"{path}{line_of(path, *keys)}: {error.spelled(Spelling.KEY)}") from None
    return read


def group_of(group: type[T], path: Path, values: Mapping[str, Any]) -> T:
    """Return a group of options with the values that were read from a file.

    Raises:
        ValueError: A key is missing, or does not go with another. The message names the file.
    """
    for field, _ in options_of(group):
        if field.name not in values and field.default is field.default_factory is MISSING:
            raise ValueError(f"{path}: the key {field.name} is missing")
    try:
        return group(**values)
    except OptionError as error:
        raise ValueError(f"{path}: {error.spelled(Spelling.KEY)}") from None


def read_table(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file.

    Raises:
        ValueError: It is not TOML. The message has the line, if there is one that is wrong.
        OSError: The file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # a byte order mark is what some editors begin a text with
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not TOML: it is no UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: is not TOML: {_with_line(str(error), text)}") from None
    except RecursionError:
        raise ValueError(f"{path}: its values are nested too deeply") from None


def _with_line(problem: str, text: str) -> str:
    """Return what is wrong with a text, with the number of the line and the line itself."""
    what, _, place = problem.partition(" (at ")
    lines = text.rstrip().splitlines() or [""]
    found = re.match(r"line (\d+)", place)
    number = min(int(found[1]), len(lines)) if found else len(lines)  # else it is the end
    return f"{what}, in line {number}: {lines[number - 1].strip()!r:.80}"


def _as_option(field: Field[Any], spec: Option, value: Any) -> Any:  # noqa: ANN401
    """Return a value of TOML as the option has it.

    Raises:
        OptionError: It should be a table or a list, or has one inside.
    """
    kind = value_type(field)
    if kind is dict:
        if not isinstance(value, Mapping):
            raise OptionError(
                Named(field.name, value), f" must be a table, such as a line [{field.name}] and lines KEY = VALUE below"
            )
        return dict(_texts(field.name, value))
    if kind is tuple:
        if not isinstance(value, list):
            raise OptionError(Named(field.name, value), ' must be a list, such as ["sgd", "ec-sgd"]')
        is_path = get_args(field.type)[0] is Path
        return tuple(Path(each) if is_path and isinstance(each, str) else each for each in value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is str and isinstance(value, list) and all(type(each) in (int, float) for each in value):
        return ",".join(map(str, value))  # such as shares of a run
    example = re.search(r"such as ([^\s;,]+?)[.;,]*(\s|$)", spec.about)
    if kind is str and not isinstance(value, str) and not spec.choices and example:
        raise OptionError(Named(field.name, value), f' must be a text, such as "{example[1]}"')
    return value


class _InTableError(OptionError):
    """A value in a table is wrong."""

    def __init__(self, message: str, keys: Sequence[str]) -> None:
        super().__init__(message)
        self.keys = tuple(keys)
        """What leads to the value, from the table."""


def _texts(option: str, table: Mapping[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """Return the entries of a table as the texts that a user would type; of tables in it with their names before."""
    found: list[tuple[str, str]] = []
    for key, value in table.items():
        name = ".".join((*above, key))
        if isinstance(value, Mapping):
            found += _texts(option, value, (*above, key))
        elif isinstance(value, bool):
            found.append((name, str(value).lower()))
        elif isinstance(value, int | float | str):
            found.append((name, str(value)))
        else:
            shown = f"{option}.{name} = {value!r:.60}"
            raise _InTableError(f"{shown} must be a number, a text, true, false or a table", (*above, key))
    names = [name for name, _ in found]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise _InTableError(f"{option}.{doubled} is given twice, with dots in a key and as a table", above)
    return found


def with_typed(from_file: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a file with those that were typed, which win.

    Tables are joined. A typed `skip` also takes the file's `skip.probability` away, which is of the file's `skip`.
    """
    values = {**from_file, **typed}
    for name in from_file.keys() & typed.keys():
        if isinstance(typed[name], Mapping):
            remaining = {
                key: text
                for key, text in from_file[name].items()
                if not any(key.startswith(f"{plugged}.") for plugged in typed[name])
            }
            values[name] = remaining | dict(typed[name])
    return values
