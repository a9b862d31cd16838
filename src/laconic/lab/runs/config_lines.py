"""On which line of a TOML file a key stands, at its top or within tables and lists. tomllib does not say.

The line of a key is the last one of the shortest beginning of the file that has it. A beginning that ends within lists
or tables of several lines is completed first.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_BETWEEN = r"[.:] *([\w-]+: )?"
"""What stands between the keys of nested tables in a message: "skip.probability", "skip: random: probability"."""
Key = str | int
"""A key of a table, or a place in a list, from 0."""
_COMPLETIONS = ("", "\n]", "}", "}\n]", "\n]}\n]", "\n]\n]", "}}\n]")


def line_of(path: Path, *keys: Key) -> str:
    """Return ", line 3" for the key that these keys lead to; nothing where it is not found.

    Args:
        path: A file that is valid TOML.
        *keys: From the top of the file, such as "set", "density" or "algorithms", 1, "lr".
    """
    lines = path.read_bytes().decode("utf-8-sig").splitlines(keepends=True)
    name = re.escape(str(keys[-1]))
    # An item of a list may stand in any line.
    named = re.compile("" if isinstance(keys[-1], int) else rf"(^|[\s\[{{,.])(\"{name}\"|'{name}'|{name})\s*([=.\]]|$)")
    for number, line in enumerate(lines, start=1):
        if named.search(line.rstrip("\n")) and _begins(keys, lines, number):
            return f", line {number}"
    return ""


def line_of_named(path: Path, message: str, tables: Iterable[tuple[Sequence[Key], Mapping[str, Any]]]) -> str:
    """Return ", line 3" for the key that a message names, which is in one of these tables; nothing if it names none.

    Args:
        path: A file that is valid TOML.
        message: What is wrong, such as "ssgd-mv: density=2 must be in (0, 1]".
        tables: Each table of the file, after the keys that lead to it.
    """
    found = [
        (named.start(), -len(_words(keys)), (*above, *keys))
        for above, table in tables
        for keys in _paths(table)
        if (named := re.search(rf"(?<![\w.-]){_BETWEEN.join(map(re.escape, _words(keys)))}(?![\w.-])", message))
    ]
    return line_of(path, *min(found, key=lambda one: one[:2])[2]) if found else ""


def _words(keys: Sequence[str]) -> list[str]:
    return ".".join(keys).split(".")


def _paths(table: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    """Return the keys that lead to each value in nested tables; a key with dots leads there as a whole."""
    for key, value in table.items():
        yield (key,)
        if isinstance(value, Mapping):
            yield from ((key, *below) for below in _paths(value))


def _begins(keys: Sequence[Key], lines: Sequence[str], number: int) -> bool:
    """Return whether the line of this number, from 1, is the first that has the key."""
    before, text = _completed("".join(lines[: number - 1])), _completed("".join(lines[:number]))
    if before is None or _has(keys, before):
        return False  # within a text of several lines, or later
    return _has(keys, text) if text is not None else True  # its own value goes on


def _completed(text: str) -> dict[str, Any] | None:
    """Return the content of a beginning of a file; None where it cannot be completed."""
    for completion in _COMPLETIONS:
        try:
            return tomllib.loads(text.rstrip() + completion)
        except tomllib.TOMLDecodeError:
            continue
    return None


def _has(keys: Sequence[Key], content: Any) -> bool:  # noqa: ANN401 - whatever TOML can hold
    for key in keys:
        inside = range(len(content)) if isinstance(content, list) else content
        if not isinstance(inside, Mapping | range) or key not in inside:
            return False
        content = content[key]
    return True
