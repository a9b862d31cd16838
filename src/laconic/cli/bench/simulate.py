"""`laconic bench simulate`: the simulator against a bare loop, and the speed of the schedule engine."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from laconic.cli.bench.table import (
    Algorithms,
    JsonFile,
    Repeats,
    algorithms_in,
    bar_text,
    bench_table,
    check,
    finish,
    measured,
    quartiles_text,
)
from laconic.cli.train import by_algorithm, pairs
from laconic.units import seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement

_METHODS = "compskip,ssgd-mv,dropsign,signsgd-mv,sgd"
_WORKERS = 10
_BATCHES = (10, 32, 128)


def bench_simulate(
    algorithms: Algorithms = _METHODS,
    workers: Annotated[int, typer.Option("--workers", help="The number of simulated workers.")] = _WORKERS,
    batches: Annotated[
        list[int] | None,
        typer.Option("--batch-size", help="The batch size of each worker. Can be given several times."),
    ] = None,
    ring: Annotated[
        int, typer.Option("--ring", help="The number of workers of the ring all-reduce whose messages are timed.")
    ] = 1024,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="Set one hyper-parameter of one method. Can be given several times."
        ),
    ] = None,
    repeats: Repeats = 15,
    file: JsonFile = None,
) -> None:
    """Time simulated rounds against a bare loop over the same gradients, and the messages of a large schedule."""
    from laconic.bench.simulate import measure_events, measure_simulation

    methods = algorithms_in(algorithms)
    settings, _ = by_algorithm(methods, pairs(set_), {})
    check(repeats, file)
    sizes = batches or list(_BATCHES)
    bounds = [("--workers", workers, 2, 4096), ("--ring", ring, 2, 2048)]
    bounds += [("--batch-size", size, 1, 10**6) for size in sizes]
    for option, value, minimum, maximum in bounds:
        if not minimum <= value <= maximum:
            raise ValueError(f"{option} {value} must be in {minimum} .. {maximum}")
    console = Console()
    rows = measured(
        console,
        lambda listen: chain(
            measure_simulation(methods, workers, sizes, repeats, settings=settings, listen=listen),
            measure_events(ring, repeats, listen=listen),
        ),
    )
    rounds = [row for row in rows if row.unit == "times"]
    console.print(_rounds(rounds, workers, repeats))
    console.print(_events([row for row in rows if row.unit == "s"], ring))
    shown = {"workers": workers, "batch_sizes": sizes, "ring": ring, "repeats": repeats, "set": settings, "threads": 1}
    finish(console, "simulate", shown, rows, file)


def _rounds(rows: Sequence[Measurement], workers: int, repeats: int) -> Table:
    d = rows[0].details["parameters"] if rows else 0
    table = bench_table(
        f"simulate: {workers} workers, {d:,} parameters, one thread, median of {repeats}",
        "times: time of a round over that of a bare loop with the same gradients, measured in turns. *: more than the "
        "bar. extra: time of a worker's round beyond its gradient",
        ["method"], ["batch", "round", "bare", "extra", "rounds/s", "times", "quartiles", "bar"],
    )  # fmt: skip
    for row in rows:
        details = row.details
        bare_s = details["bare_s"]
        table.add_row(
            str(row.name["simulation"]), str(row.name["batch"]), seconds_text(row.median * bare_s),
            seconds_text(bare_s), seconds_text((row.median - 1) * bare_s / workers),
            f"{details['rounds_per_s']:.3g}", f"{row.median:.3g}", quartiles_text(row),
            bar_text(row.median, details["bar"]),
        )  # fmt: skip
    return table


def _events(rows: Sequence[Measurement], ring: int) -> Table:
    table = bench_table(
        f"schedule engine: a ring all-reduce of {ring:,} workers", "the first call also loads the machine code",
        ["call"], ["messages", "takes", "quartiles", "messages/s"],
    )  # fmt: skip
    for row in rows:
        low, high = row.quartiles
        table.add_row(
            str(row.name["simulation"]), f"{row.details['messages']:,}", seconds_text(row.median),
            f"{seconds_text(low)} .. {seconds_text(high)}", f"{row.details['events_per_s']:,.0f}",
        )  # fmt: skip
    return table
