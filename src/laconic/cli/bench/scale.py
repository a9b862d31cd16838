"""`laconic bench scale`: how the cost of a simulated round grows with workers and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from laconic.cli.bench.table import (
    Algorithms,
    JsonFile,
    Repeats,
    algorithms_in,
    bench_table,
    check,
    check_size,
    finish,
    measured,
)
from laconic.cli.train import by_algorithm, pairs
from laconic.units import seconds_text, size

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement

_MAX_WORKERS = 4096


def bench_scale(
    algorithms: Algorithms = "",
    workers: Annotated[
        list[int] | None,
        typer.Option(
            "--workers",
            help="A number of simulated workers. Can be given several times.",
            show_default="2, 4, .. 64",
        ),
    ] = None,
    parameters: Annotated[
        list[int] | None,
        typer.Option(
            "--parameters",
            help="A number of parameters. Can be given several times.",
            show_default="0.1 to 25 million",
        ),
    ] = None,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="SIZE", help="The maximum memory of all vectors of one combination."),
    ] = "4GB",
    seconds: Annotated[float, typer.Option("--seconds", help="The maximum number of seconds per method.")] = 120.0,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="Set one hyper-parameter of one method. Can be given several times."
        ),
    ] = None,
    repeats: Repeats = 3,
    file: JsonFile = None,
) -> None:
    """Fit how the cost of a simulated round with given gradients grows with workers and parameters."""
    from laconic.bench.scale import SIZES, WORKERS, Left, measure_scale

    methods = algorithms_in(algorithms)
    settings, _ = by_algorithm(methods, pairs(set_), {})
    worker_counts, sizes = tuple(dict.fromkeys(workers or WORKERS)), tuple(dict.fromkeys(parameters or SIZES))
    check(repeats, file)
    for d in sizes:
        check_size("--parameters", d)
    for n in worker_counts:
        if not 1 <= n <= _MAX_WORKERS:
            raise ValueError(f"--workers {n} must be in 1 .. {_MAX_WORKERS}")
    if not seconds > 0:
        raise ValueError(f"--seconds {seconds} must be above 0")
    memory_bytes = size(memory)
    console = Console()
    left = Left()
    rows = measured(
        console,
        lambda listen: measure_scale(
            methods, worker_counts, sizes, repeats, memory_bytes=memory_bytes, limit_s=seconds, settings=settings,
            left=left,
            listen=listen,
        ),
    )  # fmt: skip
    console.print(_table(rows, worker_counts, sizes, repeats))
    shown = {
        "workers": list(worker_counts), "parameters": list(sizes), "repeats": repeats, "memory_bytes": memory_bytes,
        "seconds": seconds, "set": settings, "threads": 1,
    }  # fmt: skip
    finish(console, "scale", shown, rows, file, left)


def _table(rows: Sequence[Measurement], worker_counts: Sequence[int], sizes: Sequence[int], repeats: int) -> Table:
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


def _exponent(row: Measurement) -> str:
    low, high = row.details["bar"]
    return f"{row.median:.2f}{' ' if low <= row.median <= high else '*'}"
