"""`laconic bench`: what things cost on this machine."""

import json
import statistics
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from laconic.benches import Bench, measure_kernels
from laconic.lab.provenance import machine, versions
from laconic.quantities import seconds_text

bench = typer.Typer(name="bench", help="Measure what things cost on this machine.", no_args_is_help=True)


@bench.callback()
def options() -> None:
    """Measure what things cost on this machine."""


@bench.command("kernels")
def bench_kernels(
    d: Annotated[int, typer.Option("--d", help="Entries of the vector; the default is ResNet-18's.")] = 11_173_962,
    density: Annotated[
        list[float] | None, typer.Option("--density", help="Share of entries sent. May be given often.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="How often each kernel runs.")] = 15,
    file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures here.")] = None,
) -> None:
    """Time top-K, quantizer and position codes as multiples of one memory copy, beside plain torch."""
    densities = tuple(dict.fromkeys(density or (0.01, 0.001)))
    if not 2 <= d <= 2**32:
        raise ValueError(f"--d {d} must be in 2 .. {2**32}; ResNet-18 has 11173962")
    if repeats < 1:
        raise ValueError(f"--repeats {repeats} must be at least 1; 15 gives a steady median")
    for share in densities:
        if not 0 < share <= 1:
            raise ValueError(f"--density {share} must be in (0, 1]; the papers use 0.01 and 0.001")
    if file is not None and not file.parent.is_dir():
        raise ValueError(f"--json {file}: there is no folder {file.parent}; make it, or write elsewhere")
    console = Console()
    with console.status("measuring"):
        rows = list(measure_kernels(d, densities, repeats))
    console.print(_table(rows, d, repeats))
    if file is not None:
        file.write_text(json.dumps(_figures(rows, d, repeats), indent=2) + "\n")


def _table(rows: list[Bench], d: int, repeats: int) -> Table:
    copy_s = statistics.median(seconds for row in rows for seconds in row.measured.copy_seconds)
    table = Table(
        title=f"kernels: {d:,} float32, one thread, median of {repeats}; one copy takes {seconds_text(copy_s)}",
        caption="copies: time over that of one copy. bits: of a position; least: what any code must spend on it",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("kernel", no_wrap=True)
    for column in ("density", "copies", "quartiles", "torch takes", "bits", "least"):
        table.add_column(column, justify="right", no_wrap=True)
    torch_s = {(row.kernel, row.density): row.measured.median_s for row in rows if row.by == "torch"}
    for row in rows:
        lower, upper = row.measured.quartiles
        plain_s = None if row.by == "torch" else torch_s.get((row.kernel, row.density))
        table.add_row(
            row.kernel if row.by == "laconic" else f"{row.kernel} by {row.by}",
            "" if row.density is None else f"{row.density:.4g}",
            f"{row.measured.copies:.3g}",
            f"{lower:.3g} .. {upper:.3g}",
            "" if plain_s is None else f"{plain_s / row.measured.median_s:.1f} x",
            "" if row.bits_per_position is None else f"{row.bits_per_position:.3f}",
            "" if row.least_bits_per_position is None else f"{row.least_bits_per_position:.3f}",
        )
    return table


def _figures(rows: list[Bench], d: int, repeats: int) -> dict[str, object]:
    return {
        "d": d,
        "repeats": repeats,
        "threads": 1,
        "versions": {**versions(), "numba": version("numba")},
        "machine": machine(),
        "rows": [row.figures() for row in rows],
    }
