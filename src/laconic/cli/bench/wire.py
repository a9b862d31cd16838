"""`laconic bench wire`: the time and bytes of each kind of packet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from laconic.cli.bench.table import JsonFile, Repeats, bench_table, check, check_size, finish, measured
from laconic.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement


def bench_wire(
    d: Annotated[
        int, typer.Option("--d", help="The number of elements of the vector; the default is ResNet-18's.")
    ] = 11_173_962,
    density: Annotated[float, typer.Option("--density", help="The share of elements that sparse packets send.")] = 0.01,
    repeats: Repeats = 7,
    file: JsonFile = None,
) -> None:
    """Time making, encoding and decoding each kind of packet, and show its bytes beside the entropy bound."""
    from laconic.bench.wire import measure_wire

    check_size("--d", d)
    check(repeats, file)
    if not 0 < density <= 1:
        raise ValueError(f"--density {density} must be in (0, 1]; the papers use 0.01 and 0.001")
    console = Console()
    rows = measured(console, lambda listen: measure_wire(d, density, repeats, listen=listen))
    console.print(_table(rows, d, repeats))
    finish(console, "wire", {"d": d, "density": density, "repeats": repeats, "threads": 1}, rows, file)


def _table(rows: Sequence[Measurement], d: int, repeats: int) -> Table:
    table = bench_table(
        f"wire: {d:,} float32, one thread, median of {repeats}; one copy takes "
        f"{seconds_text(rows[0].details['copy_s'])}",
        "compress, encode, decode, + add: time in copies; the file has the quartiles. bytes: of the full frame. bits: "
        "per element; bound: positions log2 C(d, k), signs 1 bit, levels their entropy, values unchanged; over: bits "
        "above the bound",
        ["packet"], ["compress", "encode", "decode", "+ add", "bytes", "bits", "bound", "over"],
    )  # fmt: skip
    packets = dict.fromkeys(row.name["packet"] for row in rows)
    by_name = {(row.name["packet"], row.name["what"]): row for row in rows}
    for packet in packets:
        times = [by_name[packet, what].median for what in ("compress", "encode", "decode", "decode, add")]
        details = by_name[packet, "encode"].details
        minimum, over = details["min_bits_per_parameter"], details["over_min"]
        table.add_row(
            str(packet), *(f"{time:.3g}" for time in times), bytes_text(details["bytes"]),
            f"{details['bits_per_parameter']:.3g}", "" if minimum is None else f"{minimum:.3g}",
            "" if over is None else f"{over - 1:.1%}",
        )  # fmt: skip
    return table
