"""Modules of a user's own in the current folder, each of a name of its own."""

import itertools
import sys
import textwrap

_NUMBERS = itertools.count(1)


def own_module(folder, monkeypatch, text):
    """Write a module into a folder, which becomes the current one for the test, and return its name."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"written_by_test_{next(_NUMBERS)}"
    (folder / f"{name}.py").write_text(textwrap.dedent(text), encoding="utf-8")
    return name
