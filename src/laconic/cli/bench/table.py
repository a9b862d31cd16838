"""Options, checks, tables and result files of all benches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from laconic.cli.invocation import is_quiet
from laconic.cli.json_output import JsonOutput
from laconic.lab.algorithms import algorithm_names
from laconic.lab.defaults import MAX_VECTOR
from laconic.lab.options import PURE_NUMBER, option
from laconic.report.fitting import FittingTable
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement


def repeats_option(default: int) -> Any:  # noqa: ANN401 - a field
    """Return the option `repeats`."""
    return option(
        default, "The number of times that each case is measured.", within="[1, inf)", unit="times",
        hint="15 gives a steady median",
    )  # fmt: skip


def length_option(default: int | tuple[int, ...], about: str, *, shown: str = "") -> Any:  # noqa: ANN401 - a field
    """Return an option that is a number of parameters, or several."""
    return option(
        default, about, within=f"[2, {MAX_VECTOR}]", unit="elements" if shown == "" else "parameters", shown=shown,
        hint="ResNet-18 has 11173962",
    )  # fmt: skip


def density_option(default: float | tuple[float, ...], about: str) -> Any:  # noqa: ANN401 - a field
    """Return an option that is a share of elements, or several."""
    return option(default, about, within="(0, 1]", unit=PURE_NUMBER, hint="the papers use 0.01 and 0.001")


def algorithms_option(default: str = "") -> Any:  # noqa: ANN401 - a field
    """Return the option `algorithms`."""
    return option(
        default, "The methods to measure: names that `laconic list` prints, with commas between them.", metavar="NAMES",
        names="methods",
    )  # fmt: skip


Listen = Callable[[str], None]


def measured(context: typer.Context, bench: Callable[[Listen], Iterable[Measurement]]) -> list[Measurement]:
    """Return all rows of a bench, and show meanwhile what it measures."""
    with terminal(stderr=True, quiet=is_quiet(context)).status("measuring") as status:
        return list(bench(lambda what: status.update(Text(f"measuring {what}"))))


def finish(
    context: typer.Context,
    bench: str,
    settings: Mapping[str, Any],
    rows: Sequence[Measurement],
    file: JsonOutput,
    left_out: Sequence[str] = (),
) -> None:
    """Write the result file, and print what was not measured and why."""
    from laconic.bench.measure import result_of

    notes = [f"left out: {what}" for what in left_out]
    notes.append(file.write(result_of(bench, settings, rows, left_out)))
    if not is_quiet(context):
        for note in filter(None, notes):
            file.console.print(note, soft_wrap=True)


def algorithms_in(names: str) -> tuple[str, ...]:
    """Return the names between commas, or all algorithms if there is none.

    Raises:
        OptionError: A name is unknown.
    """
    return algorithm_names([name.strip() for name in names.split(",") if name.strip()], option="algorithms")


def bench_table(
    title: str, caption: str, names: Sequence[str], numbers: Sequence[str], *, always: str = ""
) -> FittingTable:
    """Return an empty table with left-aligned `names` columns and right-aligned `numbers` columns.

    Where it is too wide, numbers are dropped from the right, but for `always`, which is the first unless it is given.
    """
    table = FittingTable(title, caption=caption, remedy="a wider terminal or --json - shows them")
    for column in names:
        table.add_column(column)
    for place, column in enumerate(numbers):
        table.add_column(
            column, justify="right", importance=float("inf") if column == (always or numbers[0]) else -place
        )
    return table


def quartiles_text(row: Measurement) -> str:
    """Return the quartiles as text."""
    lower, upper = row.quartiles
    return f"{lower:.3g} .. {upper:.3g}"


def bar_text(value: float, bar: float | None) -> str:
    """Return the bar as text, with a star if `value` is above it."""
    return "" if bar is None else f"{bar:.3g}{'*' if value > bar else ' '}"
