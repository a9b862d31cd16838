"""`laconic bench simulate`: the simulator against a bare loop, and the speed of the schedule engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from laconic.cli.bench.table import (
    algorithms_in,
    algorithms_option,
    bar_text,
    bench_table,
    finish,
    measured,
    quartiles_text,
    repeats_option,
)
from laconic.cli.flags import with_flags
from laconic.cli.json_output import json_option, json_output
from laconic.lab.algorithms import settings_by_name
from laconic.lab.options import OptionGroup, hyperparameters_by_name, option
from laconic.report.fitting import FittingTable
from laconic.units import seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(OptionGroup):
    """The options of `laconic bench simulate`."""

    algorithms: str = algorithms_option("compskip,ssgd-mv,dropsign,signsgd-mv,sgd")
    workers: int = option(10, "The number of simulated workers.", within="[2, 4096]", unit="workers")
    batch_size: tuple[int, ...] = option(
        (10, 32, 128), "The batch size of each worker, in examples. Can be given several times.",
        within="[1, 1000000]", unit="examples",
    )  # fmt: skip
    side_by_side: int = option(
        1, "The number of threads for the gradients of a simulation; the bare loop has one.", within="[1, 4096]",
        unit="threads",
    )  # fmt: skip
    ring: int = option(
        1024, "The number of workers of the ring all-reduce whose messages are timed.", within="[2, 2048]",
        unit="workers",
    )  # fmt: skip
    set: dict[str, str] = hyperparameters_by_name()
    repeats: int = repeats_option(15)
    json: Path | None = json_option()


@with_flags(SimulateOptions, alone=True)
def bench_simulate(context: typer.Context, options: SimulateOptions) -> None:
    """Time simulated rounds against a bare loop over the same gradients, and the messages of a large schedule."""
    from laconic.bench.simulate import measure_events, measure_simulation

    methods = algorithms_in(options.algorithms)
    settings = settings_by_name(methods, options.set)
    workers, sizes, ring, repeats = options.workers, list(options.batch_size), options.ring, options.repeats
    threads = options.side_by_side
    with json_output(options.json) as file:
        rows = measured(
            context,
            lambda listen: chain(
                measure_simulation(
                    methods, workers, sizes, repeats, settings=settings, side_by_side=threads, listen=listen
                ),
                measure_events(ring, repeats, listen=listen),
            ),
        )
        rounds = [row for row in rows if row.unit == "times"]
        file.console.print(_rounds(rounds, workers, repeats, threads))
        file.console.print(_events([row for row in rows if row.unit == "s"], ring))
        shown = {
            "workers": workers,
            "batch_sizes": sizes,
            "ring": ring,
            "repeats": repeats,
            "set": settings,
            "side_by_side": threads,
            "threads": 1,
        }
        finish(context, "simulate", shown, rows, file)


def _rounds(rows: Sequence["Measurement"], workers: int, repeats: int, side_by_side: int) -> FittingTable:
    d = rows[0].details["parameters"] if rows else 0
    threads = "one thread" if side_by_side == 1 else f"{side_by_side} threads over a bare loop in one"
    table = bench_table(
        f"simulate: {workers} workers, {d:,} parameters, {threads}, median of {repeats}",
        "times: time of a round over that of a bare loop with the same gradients, measured in turns. *: more than the "
        "bar. extra: time of a worker's round beyond its gradient",
        ["method"], ["batch", "round", "bare", "extra", "rounds/s", "times", "quartiles", "bar"],
    )  # fmt: skip
    for row in rows:
        details = row.details
        bare_s = details["bare_s"]
        table.add_row(
            str(row.name["simulation"]), str(row.name["batch"]), seconds_text(row.median * bare_s),
            seconds_text(bare_s), seconds_text(max(0.0, row.median - 1) * bare_s / workers),
            f"{details['rounds_per_s']:.3g}", f"{row.median:.3g}", quartiles_text(row),
            bar_text(row.median, details["bar"]),
        )  # fmt: skip
    return table


def _events(rows: Sequence["Measurement"], ring: int) -> FittingTable:
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
