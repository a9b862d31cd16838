"""`laconic bench scale`: how the cost of a simulated round grows with workers and parameters."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from laconic.cli.bench.table import (
    algorithms_in,
    algorithms_option,
    bench_table,
    finish,
    length_option,
    measured,
    repeats_option,
)
from laconic.cli.flags import with_flags
from laconic.cli.json_output import json_option, json_output
from laconic.lab.algorithms import settings_by_name
from laconic.lab.options import OptionGroup, hyperparameters_by_name, option
from laconic.report.fitting import FittingTable
from laconic.units import seconds_text, size

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement


@dataclass(frozen=True, kw_only=True)
class ScaleOptions(OptionGroup):
    """The options of `laconic bench scale`."""

    algorithms: str = algorithms_option()
    workers: tuple[int, ...] = option(
        (), "A number of simulated workers. Can be given several times.", within="[1, 4096]", unit="workers",
        shown="2, 4, .. 64",
    )  # fmt: skip
    parameters: tuple[int, ...] = length_option(
        (), "A number of parameters. Can be given several times.", shown="0.1 to 25 million"
    )
    memory: str = option("4GB", "The maximum memory of all vectors of one combination.", metavar="SIZE", reads=size)
    seconds: float = option(120.0, "The maximum number of seconds per method.", within="(0, inf)", unit="seconds")
    set: dict[str, str] = hyperparameters_by_name()
    repeats: int = repeats_option(3)
    json: Path | None = json_option()


@with_flags(ScaleOptions, alone=True)
def bench_scale(context: typer.Context, options: ScaleOptions) -> None:
    """Fit how the cost of a simulated round with given gradients grows with workers and parameters."""
    from laconic.bench.scale import SIZES, WORKERS, Left, measure_scale

    methods = algorithms_in(options.algorithms)
    settings = settings_by_name(methods, options.set)
    worker_counts = tuple(dict.fromkeys(options.workers or WORKERS))
    sizes = tuple(dict.fromkeys(options.parameters or SIZES))
    repeats, seconds = options.repeats, options.seconds
    memory_bytes = size(options.memory)
    with json_output(options.json) as file:
        left = Left()
        rows = measured(
            context,
            lambda listen: measure_scale(
                methods, worker_counts, sizes, repeats, memory_bytes=memory_bytes, limit_s=seconds, settings=settings,
                left=left,
                listen=listen,
            ),
        )  # fmt: skip
        file.console.print(_table(rows, worker_counts, sizes, repeats))
        shown = {
            "workers": list(worker_counts), "parameters": list(sizes), "repeats": repeats, "memory_bytes": memory_bytes,
            "seconds": seconds, "set": settings, "threads": 1,
        }  # fmt: skip
        finish(context, "scale", shown, rows, file, left)


def _table(
    rows: Sequence["Measurement"], worker_counts: Sequence[int], sizes: Sequence[int], repeats: int
) -> FittingTable:
    table = bench_table(
        f"scale: {min(worker_counts)} .. {max(worker_counts)} workers, {min(sizes):,} .. {max(sizes):,} parameters, "
        f"{repeats} turns",
        "exponents: joint least-squares fit of log seconds on log N and log d, median and quartiles over the turns; "
        "*: outside 0.95 .. 1.05. largest: the measured combination with the largest product N d, and its time",
        ["method"], ["N to the", "quartiles", "d to the", "quartiles", "largest", "takes"],
    )  # fmt: skip
    for method in dict.fromkeys(row.name["method"] for row in rows):
        mine = [row for row in rows if row.name["method"] == method]
        cells = [row for row in mine if row.name["what"] == "round"]
        largest = max(cells, key=lambda row: int(row.name["workers"]) * int(row.name["parameters"]))
        texts = []
        for what in ("exponent of N", "exponent of d"):
            row = next((row for row in mine if row.name["what"] == what), None)
            texts += ["", ""] if row is None else [_exponent(row), "{:.2f} .. {:.2f}".format(*row.quartiles)]
        where = f"{largest.name['workers']} x {int(largest.name['parameters']) / 1e6:.3g}M"
        table.add_row(str(method), *texts, where, seconds_text(largest.median))
    return table


def _exponent(row: "Measurement") -> str:
    low, high = row.details["bar"]
    return f"{row.median:.2f}{' ' if low <= row.median <= high else '*'}"
