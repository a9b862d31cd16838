"""`laconic bench kernels`: the time of each kernel in multiples of one memory copy."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from laconic.cli.bench.table import (
    bar_text,
    bench_table,
    density_option,
    finish,
    length_option,
    measured,
    quartiles_text,
    repeats_option,
)
from laconic.cli.flags import with_flags
from laconic.cli.json_output import json_option, json_output
from laconic.lab.options import OptionGroup, option
from laconic.report.fitting import FittingTable
from laconic.units import seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement

_SMALL_BAR_US = 50
_SMALL_MODEL = 407_050  # parameters of the MLP 784-512-10


@dataclass(frozen=True, kw_only=True)
class KernelOptions(OptionGroup):
    """The options of `laconic bench kernels`."""

    d: int = length_option(11_173_962, "The number of elements of the vector; the default is ResNet-18's.")
    density: tuple[float, ...] = density_option(
        (0.01, 0.001), "The share of elements that are sent. Can be given several times."
    )
    repeats: int = repeats_option(15)
    only: str = option("", "Measure only kernels whose name contains this text.", metavar="TEXT")
    no_retained: bool = option(False, "Do not measure torch with an allocator that retains freed temporaries.")
    twins: bool = option(
        False, "Measure instead how many times as long plain-numba twins of the LLVM kernels take, at 407,050 elements "
        "and at --d.",
    )  # fmt: skip
    json: Path | None = json_option()


@with_flags(KernelOptions, alone=True)
def bench_kernels(context: typer.Context, options: KernelOptions) -> None:
    """Time every kernel on one thread, in multiples of one memory copy, beside torch and other libraries."""
    from laconic.bench.kernels import measure_kernels

    if options.twins:
        _bench_twins(context, options)
        return
    d, repeats, densities = options.d, options.repeats, tuple(dict.fromkeys(options.density))
    with json_output(options.json) as file:
        rows = measured(
            context,
            lambda listen: measure_kernels(
                d, densities, repeats, retained=not options.no_retained, only=options.only, listen=listen
            ),
        )
        file.console.print(_table(rows, d, repeats))
        settings = {"d": d, "densities": list(densities), "repeats": repeats, "threads": 1}
        finish(context, "kernels", settings, rows, file)


def _bench_twins(context: typer.Context, options: KernelOptions) -> None:
    from laconic.bench.twins import BAR, measure_twins

    sizes, repeats = tuple(dict.fromkeys((_SMALL_MODEL, options.d))), options.repeats
    with json_output(options.json) as file:
        rows = measured(context, lambda listen: measure_twins(sizes, repeats, only=options.only, listen=listen))
        table = bench_table(
            f"LLVM kernels and plain twins: float32, one thread, median of {repeats}",
            "times: the twin's time over the kernel's, measured in turns, both of computing alone; *: less than "
            f"{BAR:g}. copies: the kernel's time over that of one memory copy; plain: the twin's",
            ["kernel", "call"], ["d", "times", "quartiles", "copies", "plain"], always="times",
        )  # fmt: skip
        for row in rows:
            details = row.details
            star = "*" if row.median < BAR else " "
            table.add_row(
                str(row.name["kernel"]), str(row.name["call"]), f"{row.name['d']:,}", f"{row.median:.2f}{star}",
                quartiles_text(row), f"{details['copies']:.3g}", f"{details['plain_copies']:.3g}",
            )  # fmt: skip
        file.console.print(table)
        finish(context, "twins", {"sizes": list(sizes), "repeats": repeats, "threads": 1}, rows, file)


def _table(rows: Sequence["Measurement"], d: int, repeats: int) -> FittingTable:
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
