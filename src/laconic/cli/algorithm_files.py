"""What the files of algorithms say of themselves, read without importing them, so that it takes no torch.

A file says it where it decorates a class: `@algorithm("name")`, the docstring's first line, and `source`.
"""

import ast
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import laconic
from laconic.cli.lazy import load_torch

FOLDER = Path(laconic.__file__).parent / "algorithms"


@dataclass(frozen=True)
class Described:
    """One algorithm. about: one line on what it does. source: the paper."""

    name: str
    about: str
    source: str


class UnreadableError(Exception):
    """A file that has to be imported, to learn which algorithms it enters."""


def described(plugins: Sequence[str] = ()) -> list[Described]:
    """All algorithms of laconic and of a user's own files, by name.

    Raises ValueError for a plugin that is no Python file, or takes a name that another class has.
    """
    files = [path for path in sorted(FOLDER.glob("*.py")) if path.stem != "__init__"]
    files += dict.fromkeys(_plugin(text) for text in plugins)
    try:
        return _in_files(files)
    except UnreadableError:
        return _imported(plugins)


def read_file(path: Path) -> list[Described]:
    """The algorithms that one file enters.

    Raises UnreadableError where it enters none, or one in another way than by a literal name above a class.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _enters(node)]
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            for call in node.decorator_list:
                if call in calls and isinstance(name := _literal(call.args[0] if call.args else None), str):
                    source = _source_of(node) or _summary_line(ast.get_docstring(tree))
                    found.append(Described(name, _summary_line(ast.get_docstring(node)), source))
    if not calls or len(found) < len(calls):
        raise UnreadableError(path)
    return found


def _plugin(text: str) -> Path:
    path = Path(text).expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(f"--load {text}: must be an existing Python file that ends in .py")  # as `load_plugins` says
    return path


def _in_files(paths: Sequence[Path]) -> list[Described]:
    found: dict[str, Described] = {}
    for path in paths:
        for one in read_file(path):
            if one.name in found:
                raise UnreadableError(one.name)  # who is imported second is refused, and told by whom it is taken
            found[one.name] = one
    return [found[name] for name in sorted(found)]


def _imported(plugins: Sequence[str]) -> list[Described]:
    """The same from the classes themselves."""
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
    """Whether this calls `algorithm` or `laconic.algorithm`."""
    called = call.func
    if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        return called.attr == "algorithm"
    return isinstance(called, ast.Name) and called.id == "algorithm"


def _source_of(node: ast.ClassDef) -> str:
    for line in node.body:
        if isinstance(line, (ast.Assign, ast.AnnAssign)):
            targets = line.targets if isinstance(line, ast.Assign) else [line.target]
            if any(isinstance(target, ast.Name) and target.id == "source" for target in targets):
                value = _literal(line.value)
                return value if isinstance(value, str) else ""
    return ""


def _literal(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def _summary_line(text: str | None) -> str:
    return (text or "").split("\n")[0]
