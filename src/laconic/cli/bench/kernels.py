"""`laconic bench kernels`: the time of each kernel in multiples of one memory copy."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from laconic.cli.bench.table import (
    JsonFile,
    Repeats,
    bar_text,
    bench_table,
    check,
    check_size,
    finish,
    measured,
    quartiles_text,
)
from laconic.units import seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement

_SMALL_BAR_US = 50


def bench_kernels(
    d: Annotated[
        int, typer.Option("--d", help="The number of elements of the vector; the default is ResNet-18's.")
    ] = 11_173_962,
    density: Annotated[
        list[float] | None,
        typer.Option("--density", help="The share of elements that are sent. Can be given several times."),
    ] = None,
    repeats: Repeats = 15,
    only: Annotated[
        str, typer.Option("--only", metavar="TEXT", help="Measure only kernels whose name contains this text.")
    ] = "",
    no_retained: Annotated[
        bool,
        typer.Option("--no-retained", help="Do not measure torch with an allocator that retains freed temporaries."),
    ] = False,
    file: JsonFile = None,
) -> None:
    """Time every kernel on one thread, in multiples of one memory copy, beside torch and other libraries."""
    from laconic.bench.kernels import measure_kernels

    densities = tuple(dict.fromkeys(density or (0.01, 0.001)))
    check_size("--d", d)
    check(repeats, file)
    for share in densities:
        if not 0 < share <= 1:
            raise ValueError(f"--density {share} must be in (0, 1]; the papers use 0.01 and 0.001")
    console = Console()
    rows = measured(
        console,
        lambda listen: measure_kernels(d, densities, repeats, retained=not no_retained, only=only, listen=listen),
    )
    console.print(_table(rows, d, repeats))
    settings = {"d": d, "densities": list(densities), "repeats": repeats, "threads": 1}
    finish(console, "kernels", settings, rows, file)


def _table(rows: Sequence[Measurement], d: int, repeats: int) -> Table:
    from laconic.bench.kernels import SMALL_D

    copy_s = statistics.median(row.details["copy_s"] for row in rows)
    table = bench_table(
        f"kernels: {d:,} float32, one thread, median of {repeats}; one copy takes {seconds_text(copy_s)}",
        "copies: time over that of one copy in the same minute. torch: the same with plain torch; retained: with freed "
        "temporaries that the C library retains. faster: speed-up over the better of these. "
        f"*: more than the bar, or less than 5 times faster. us: microseconds of a call at d = {SMALL_D:,}",
        ["kernel"], ["copies", "quartiles", "bar", "torch", "retained", "faster", "us"],
    )  # fmt: skip
    by_name = {(row.name["kernel"], row.name["by"]): row for row in rows}
    for row in rows:
        kernel, by = row.name["kernel"], str(row.name["by"])
        if by == "laconic":
            torches = [by_name.get((kernel, torch)) for torch in ("torch", "torch, retained")]
            table.add_row(
                str(kernel), f"{row.median:.3g}", quartiles_text(row), bar_text(row.median, row.details["bar_copies"]),
                *("" if torch_row is None else f"{torch_row.median:.3g}" for torch_row in torches),
                _faster(row.details),
                _small(row.details["small_call_s"]),
            )  # fmt: skip
        elif not by.startswith("torch"):
            table.add_row(f"  by {by}", f"{row.median:.3g}", quartiles_text(row))
    return table


def _faster(details: Mapping[str, float | None]) -> str:
    times, bar = details["times_faster"], details["times_bar"]
    if times is None:
        return ""
    return f"{times:.1f}{'*' if bar is not None and times < bar else ' '}"


def _small(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.0f}{'*' if 1e6 * seconds > _SMALL_BAR_US else ' '}"
