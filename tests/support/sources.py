"""The package's sources as syntax trees. Each is parsed once in a process; tests that need all share one process."""

import ast
import functools
from pathlib import Path

import pytest

share_trees = pytest.mark.xdist_group("syntax trees")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The tree of a file. Nobody changes it."""
    return ast.parse(path.read_text())
