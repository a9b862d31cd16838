"""Options, checks, tables and result files of all benches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from laconic.lab.algorithms import algorithm_names
from laconic.lab.defaults import MAX_VECTOR
from laconic.lab.options import PURE_NUMBER, file_to_write, option

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


def json_option() -> Any:  # noqa: ANN401 - a field
    """Return the option `json`."""
    return option(None, "The file to write all figures to, as JSON.", metavar="FILE", reads=file_to_write())


Listen = Callable[[str], None]


def measured(console: Console, bench: Callable[[Listen], Iterable[Measurement]]) -> list[Measurement]:
    """Return all rows of a bench, and show meanwhile what it measures."""
    with console.status("measuring") as status:
        return list(bench(lambda what: status.update(Text(f"measuring {what}"))))


def finish(
    console: Console,
    bench: str,
    settings: Mapping[str, Any],
    rows: Sequence[Measurement],
    file: Path | None,
    left_out: Sequence[str] = (),
) -> None:
    """Print what was not measured and why, and write the result file."""
    for what in left_out:
        console.print(f"left out: {what}", soft_wrap=True)
    if file is not None:
        from laconic.bench.measure import result_of

        file.write_text(json.dumps(result_of(bench, settings, rows, left_out), indent=2) + "\n")


def algorithms_in(names: str) -> tuple[str, ...]:
    """Return the names between commas, or all algorithms if there is none.

    Raises:
        OptionError: A name is unknown.
    """
    return algorithm_names([name.strip() for name in names.split(",") if name.strip()], option="algorithms")


def bench_table(title: str, caption: str, names: Sequence[str], numbers: Sequence[str]) -> Table:
    """Return an empty table with left-aligned `names` columns and right-aligned `numbers` columns."""
    table = Table(
        title=title, caption=caption, title_justify="left", caption_justify="left", box=SIMPLE_HEAD, padding=0,
        show_edge=False,
    )  # fmt: skip
    for column in names:
        table.add_column(column, no_wrap=True)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def quartiles_text(row: Measurement) -> str:
    """Return the quartiles as text."""
    lower, upper = row.quartiles
    return f"{lower:.3g} .. {upper:.3g}"


def bar_text(value: float, bar: float | None) -> str:
    """Return the bar as text, with a star if `value` is above it."""
    return "" if bar is None else f"{bar:.3g}{'*' if value > bar else ' '}"
