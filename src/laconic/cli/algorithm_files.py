"""Descriptions of the algorithms, read from their source files without importing them or torch.

A description is the name in `@algorithm("name")`, the first line of the class's docstring, and its `source`.
"""

import ast
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import laconic
from laconic.cli.lazy import load_torch
from laconic.errors import Named, OptionError
from laconic.hyperparameters import is_plain_name

FOLDER = Path(laconic.__file__).parent / "algorithms"


@dataclass(frozen=True)
class Described:
    """The description of one algorithm."""

    name: str
    about: str
    """One line on what it does."""
    source: str
    """The paper."""


class UnreadableError(Exception):
    """A file must be imported to learn which algorithms it registers."""


def described(plugins: Sequence[str] = ()) -> list[Described]:
    """Return the algorithms of laconic and of a user's own files, sorted by name.

    Args:
        plugins: Paths of the user's files.

    Raises:
        ValueError: A plugin is not a Python file, or takes the name of another class.
    """
    files = [path for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"]
    files += dict.fromkeys(plugin_file(text) for text in plugins)
    try:
        return _in_files(files)
    except UnreadableError:
        return _imported(plugins)


def read_file(path: Path) -> list[Described]:
    """Return the algorithms that one file registers.

    Raises:
        UnreadableError: The file registers none, or not all by a literal name in a class decorator.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise UnreadableError(path) from error  # the import says what is wrong
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _enters(node)]
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for call in node.decorator_list:
                if call in calls and isinstance(name := _literal(call.args[0] if call.args else None), str):
                    if not is_plain_name(name):
                        raise UnreadableError(path)  # the import refuses it
                    source = _text_in(node, "source") or _summary_line(ast.get_docstring(tree))
                    found.append(Described(name, _summary_line(ast.get_docstring(node)), source))
    if not calls or len(found) < len(calls):
        raise UnreadableError(path)
    return found


def plugin_file(text: str) -> Path:
    """Return the file with algorithms that a user names. Raises OptionError for what is no Python file."""
    path = Path(text).expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        # `load_plugins` says the same, but its package loads torch.
        raise OptionError(Named("load", text), ": must be an existing Python file that ends in .py")
    return path


def _in_files(paths: Sequence[Path]) -> list[Described]:
    found: dict[str, Described] = {}
    for path in paths:
        for one in read_file(path):
            if one.name in found:
                raise UnreadableError(one.name)  # the import refuses the second class and names the first
            found[one.name] = one
    return [found[name] for name in sorted(found)]


def _imported(plugins: Sequence[str]) -> list[Described]:
    """Import the files and return the descriptions of the registered classes."""
    load_torch()
    from laconic.contract import ALGORITHMS, load_plugins

    load_plugins(plugins)
    return [
        Described(
            name, _summary_line(inspect.getdoc(cls)), cls.source or _summary_line(sys.modules[cls.__module__].__doc__)
        )
        for name, cls in sorted(ALGORITHMS.items())
    ]


def _enters(call: ast.Call) -> bool:
    """Return whether this calls `algorithm` or `laconic.algorithm`."""
    called = call.func
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.attr == "algorithm"
    return isinstance(called, ast.Name) and called.id == "algorithm"


def _text_in(node: ast.ClassDef, name: str) -> str:
    """Return the text that the class gives this name; empty for none."""
    for line in node.body:
        if isinstance(line, (ast.Assign, ast.AnnAssign)):
            targets = line.targets if isinstance(line, ast.Assign) else [line.target]
            if any(isinstance(target, ast.Name) and target.id == name for target in targets):
                value = _literal(line.value)
                return value if isinstance(value, str) else ""
    return ""


def _literal(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _summary_line(text: str | None) -> str:
    return (text or "").split("\n")[0]
