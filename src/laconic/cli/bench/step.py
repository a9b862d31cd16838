"""`laconic bench step`: full steps of methods against plain all-reduce."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from laconic.cli.bench.table import (
    algorithms_in,
    algorithms_option,
    bar_text,
    bench_table,
    finish,
    length_option,
    measured,
    quartiles_text,
    repeats_option,
)
from laconic.cli.flags import with_flags
from laconic.cli.json_output import json_option, json_output
from laconic.lab.algorithms import make_algorithm, settings_by_name
from laconic.lab.options import PURE_NUMBER, OptionGroup, hyperparameters_by_name, option
from laconic.report.fitting import FittingTable
from laconic.units import bytes_text, seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement
    from laconic.contract import Algorithm


@dataclass(frozen=True, kw_only=True)
class StepOptions(OptionGroup):
    """The options of `laconic bench step`."""

    workers: tuple[int, ...] = option(
        (2, 4), "A number of processes. Can be given several times.", within="[2, 64]", unit="processes",
        shown="2 and 4",
    )  # fmt: skip
    parameters: tuple[int, ...] = length_option(
        (407_050, 11_173_962, 25_557_032), "A number of parameters of the model. Can be given several times.",
        shown="0.4, 11.17 and 25.56 million",
    )  # fmt: skip
    algorithms: str = algorithms_option()
    set: dict[str, str] = hyperparameters_by_name()
    momentum: float = option(0.0, "The momentum of the inner SGD, for all methods.", within="[0, 1)", unit=PURE_NUMBER)
    repeats: int = repeats_option(9)
    calls: bool = option(
        False, "Count the functions that one step calls, those built into Python included, and time nothing."
    )
    json: Path | None = json_option()


@with_flags(StepOptions, alone=True)
def bench_step(context: typer.Context, options: StepOptions) -> None:
    """Time full steps with given gradients, in processes on loopback, against one all-reduce and DDP."""
    from laconic.bench.step import count_calls, measure_steps

    methods = algorithms_in(options.algorithms)
    settings = settings_by_name(methods, options.set)
    sizes, worker_counts = tuple(dict.fromkeys(options.parameters)), tuple(dict.fromkeys(options.workers))
    momentum, repeats = options.momentum, options.repeats
    refused = [
        f"{method}: {why}" for method in methods for algorithm in [make_algorithm(method, settings[method])]
        for d in sizes for n in worker_counts if (why := _refusal(algorithm, d, n))
    ]  # fmt: skip
    if refused and options.algorithms:
        raise ValueError("; ".join(refused))
    methods = tuple(name for name in methods if not any(text.startswith(f"{name}: ") for text in refused))
    with json_output(options.json) as file:
        rows: list[Measurement] = []
        for n in worker_counts:  # each table is printed as soon as it is measured, since all together take long
            given: dict[str, Any] = {"settings": settings, "momentum": momentum}
            rows += measured(
                context,
                lambda listen, n=n, given=given: (
                    count_calls(sizes, n, methods, listen=listen, **given)  # type: ignore[misc]
                    if options.calls
                    else measure_steps(sizes, n, methods, repeats, listen=listen, **given)
                ),
            )
            for d in sizes:
                chosen = [row for row in rows if (row.name["workers"], row.name["parameters"]) == (n, d)]
                file.console.print(_calls_table(chosen, n, d) if options.calls else _table(chosen, n, d, repeats))
        shown = {
            "workers": list(worker_counts), "parameters": list(sizes), "repeats": repeats, "set": settings,
            "momentum": momentum, "calls": options.calls,
            "threads": 1,
        }  # fmt: skip
        finish(context, "step", shown, rows, file, refused)


def _refusal(algorithm: "Algorithm", d: int, n: int) -> str:
    """Return why this method refuses `d` parameters on `n` processes, or an empty text."""
    from laconic.lab.synthetic_job import sample_spec

    try:
        algorithm.check_size(sample_spec(algorithm, d, n), n)
    except ValueError as error:
        return f"{d:,} parameters, {n} processes: {error}"
    return ""


def _table(rows: Sequence["Measurement"], n: int, d: int, repeats: int) -> FittingTable:
    base_s = next(row for row in rows if row.name["step"] == "all-reduce").details["base_s"]
    table = bench_table(
        f"step: {n} processes, {d:,} parameters, median of {repeats}; base {seconds_text(base_s)}",
        "base: all-reduce of a flat gradient, and the optimizer's step. times: time over the base, measured in turns. "
        "gathered: the base from one tensor per parameter, as the methods get it, and with the mean. ddp includes "
        "forward and backward, no_sync is these alone; their difference is exchange and update. "
        "*: more than the bar. x ddp: the step over that difference, in turns with it. bytes: of one step, sent and "
        "received by a worker, mean over ranks. lag, lasg, sasg: without warm-up rounds, and less the time of "
        "computing a second gradient, from putting its parameters in place to putting the model's back. floor: gloo "
        "moving these bytes alone, in the same pattern, in turns with the step; x floor: the step over it. encode, "
        "wait, decode: ms of one step, mean over ranks",
        ["step"],
        ["takes", "times", "quartiles", "bar", "x ddp", "bytes", "floor", "x floor", "encode", "wait", "decode"],
    )
    for row in rows:
        table.add_row(
            str(row.name["step"]), seconds_text(max(0.0, row.median * row.details["base_s"])), f"{row.median:.3g}",
            quartiles_text(row), bar_text(row.median, row.details["bar"]), *_of_method(row.details),
        )  # fmt: skip
    return table


def _of_method(details: Mapping[str, Any]) -> list[str]:
    """Return the cells that only methods have."""
    phases = details["phases"]
    if phases is None:
        return [""] * 7
    times_ddp = statistics.median(details["seconds"]) / statistics.median(details["ddp_seconds"])
    return [
        f"{times_ddp:.3g}", bytes_text(details["bytes"]), seconds_text(statistics.median(details["floor_seconds"])),
        f"{details['times_floor']:.3g}", *(f"{1e3 * phases[key]:.3g}" for key in ("encode", "wait", "decode")),
    ]  # fmt: skip


def _calls_table(rows: Sequence["Measurement"], n: int, d: int) -> FittingTable:
    table = bench_table(
        f"calls of one step: {n} processes, {d:,} parameters",
        "calls: of all functions, those built into Python included, as cProfile counts them, mean over ranks. beyond: "
        "those that an all-reduce of a flat gradient and the optimizer's step do not make",
        ["step"], ["calls", "beyond", "fewest", "most"],
    )  # fmt: skip
    base = next(row for row in rows if row.name["step"] == "all-reduce").details["mean"]
    for row in rows:
        mean = row.details["mean"]
        table.add_row(
            str(row.name["step"]), f"{mean:,.0f}", f"{mean - base:,.0f}", f"{min(row.samples):,.0f}",
            f"{max(row.samples):,.0f}",
        )  # fmt: skip
    return table
