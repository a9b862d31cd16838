"""Tables that fit the width at hand: columns are dropped, figures never cut."""

import io
import re

import pytest
from rich.console import Console

from laconic.report.fitting import FittingTable

FIGURES = ["97.23 %", "127.4 MB", "12.3", "1.23 GB", "12345", "12/3", "12.4"]


def comparison() -> FittingTable:
    table = FittingTable("mnist, 8 workers", remedy="a wider terminal or --json FILE shows them")
    table.add_column("algorithm")
    table.add_column("layout", importance=1)
    for place, name in enumerate(["accuracy", "up", "ratio", "down", "rounds", "skips", "seconds"]):
        table.add_column(name, justify="right", importance=10 - place)
    table.add_row("ssgd-mv-rs", "server", *FIGURES)
    table.add_row("sgd", "all-reduce", *FIGURES, style="bold")
    return table


def printed(table: FittingTable, width: int, encoding: str | None = None) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding or "utf-8")
    Console(file=file, width=width).print(table)
    file.flush()
    file.seek(0)
    return file.read()


@pytest.mark.parametrize("width", [200, 80, 60, 40, 25])
def test_no_figure_is_shortened_and_no_line_is_too_long_at_any_width(width):
    text = printed(comparison(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for word in re.findall(r"\S*\d\S*", text.split("\nnot shown")[0]):
        assert word in {*" ".join(FIGURES).split(), "8"}, text


def test_the_columns_of_the_lowest_importance_are_dropped_and_named():
    text = printed(comparison(), 60)
    assert "layout" not in text.split("not shown")[0]
    assert "not shown at 60 columns: layout, seconds; a wider terminal or --json FILE shows them" in " ".join(
        text.split()
    )
    headers = ["algorithm", "accuracy", "up", "ratio", "down", "rounds", "skips"]
    assert headers in [line.split() for line in text.splitlines()]
    assert "not shown" not in printed(comparison(), 80)


def test_columns_that_are_never_dropped_become_lines_where_they_do_not_fit():
    table = FittingTable()
    table.add_column("algorithm")
    table.add_column("accuracy", justify="right")
    table.add_row("ssgd-mv-rs", "97.23%")
    table.add_row("sgd", "97.20%")
    assert printed(table, 18) == "algorithm \nssgd-mv-rs\naccuracy  97.23%\n\nalgorithm sgd\naccuracy  97.20%\n"


def test_text_that_wraps_is_broken_between_words_only():
    table = FittingTable()
    table.add_column("name")
    table.add_column("what it does", wraps=True)
    table.add_row("asgd", "the server steps with each gradient as it comes")
    lines = [line.rstrip() for line in printed(table, 30).splitlines()]
    assert lines[2:] == ["asgd the server steps with", "     each gradient as it comes"]


def test_a_terminal_that_is_no_utf_8_gets_ascii():
    assert printed(comparison(), 100, "ascii").isascii()
    assert "─" in printed(comparison(), 100)


def test_names_with_markup_in_them_are_text():
    table = FittingTable("[bold]title")
    table.add_column("[red]name")
    table.add_row("[blink]mine[/blink]")
    assert printed(table, 40).split() == ["[bold]title", "[red]name", "───────────────────", "[blink]mine[/blink]"]
