"""Which code has computed figures: finished ones are computed again where it has changed since.

The hash is of the file that a figure's function is in and of the files of this package that it imports, without
comments and docstrings. What they call in other packages is not in it.
"""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from typing import Any

from laconic.reproduce.computed import COMPUTED

KEY = "code"
_PACKAGE = __package__
_LENGTH = 12


def code_hash(name: str) -> str:
    """Return the hash of the code behind the computed figures of this name."""
    return _hash_of(COMPUTED[name].__module__)


def is_current(figures: dict[str, Any] | None, name: str) -> bool:
    """Return whether kept figures, as `Folder.computed` returns them, are those of the code as it is now."""
    return figures is not None and figures.get(KEY) == code_hash(name)


@cache
def _hash_of(module: str) -> str:
    found: dict[str, str] = {}
    _collect(module, found)
    text = "\n".join(found[one] for one in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _collect(module: str, found: dict[str, str]) -> None:
    """Put the code of a module, and of those that it imports from this package, into `found`."""
    spec = find_spec(module)
    assert spec is not None
    source = getattr(spec.loader, "get_source")(module)  # noqa: B009 - not every loader has it; those of files have
    tree = _without_docstrings(ast.parse(source))
    found[module] = ast.unparse(tree)
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    for other in sorted(imported):
        if other.startswith(f"{_PACKAGE}.") and other not in found:
            _collect(other, found)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and len(body) > 1 and _is_text(body[0]):
            del body[0]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
