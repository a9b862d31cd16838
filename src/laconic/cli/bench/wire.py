"""`laconic bench wire`: the time and bytes of each kind of packet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from laconic.cli.bench.table import (
    bench_table,
    density_option,
    finish,
    length_option,
    measured,
    repeats_option,
)
from laconic.cli.flags import with_flags
from laconic.cli.json_output import json_option, json_output
from laconic.lab.options import OptionGroup
from laconic.report.fitting import FittingTable
from laconic.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement


@dataclass(frozen=True, kw_only=True)
class WireOptions(OptionGroup):
    """The options of `laconic bench wire`."""

    d: int = length_option(11_173_962, "The number of elements of the vector; the default is ResNet-18's.")
    density: float = density_option(0.01, "The share of elements that sparse packets send.")
    repeats: int = repeats_option(7)
    json: Path | None = json_option()


@with_flags(WireOptions, alone=True)
def bench_wire(context: typer.Context, options: WireOptions) -> None:
    """Time making, encoding and decoding each kind of packet, and show its bytes beside the entropy bound."""
    from laconic.bench.wire import measure_wire

    d, density, repeats = options.d, options.density, options.repeats
    with json_output(options.json) as file:
        rows = measured(context, lambda listen: measure_wire(d, density, repeats, listen=listen))
        file.console.print(_table(rows, d, repeats))
        finish(context, "wire", {"d": d, "density": density, "repeats": repeats, "threads": 1}, rows, file)


def _table(rows: Sequence["Measurement"], d: int, repeats: int) -> FittingTable:
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
