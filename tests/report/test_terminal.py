"""The terminal that is printed to: how wide it is."""

import io
import sys

import pytest

from laconic.report.terminal import drawing_width, terminal


@pytest.mark.parametrize(("columns", "width"), [(None, 10_000), ("60", 60), ("0", 10_000), ("wide", 10_000)])
def test_what_is_no_terminal_is_narrowed_by_columns_only(monkeypatch, columns, width):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    assert terminal().width == width
    assert drawing_width(terminal()) == min(width, 80)
