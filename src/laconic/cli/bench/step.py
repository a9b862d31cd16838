"""`laconic bench step`: full steps of methods against plain all-reduce."""

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
    bar_text,
    bench_table,
    check,
    check_size,
    finish,
    measured,
    quartiles_text,
)
from laconic.cli.train import by_algorithm, pairs
from laconic.hyperparameters import from_text
from laconic.units import seconds_text

if TYPE_CHECKING:
    from laconic.bench.measure import Measurement

_SIZES = (407_050, 11_173_962, 25_557_032)
_MAX_WORKERS = 64


def bench_step(
    workers: Annotated[
        list[int] | None,
        typer.Option("--workers", help="A number of processes. Can be given several times.", show_default="2 and 4"),
    ] = None,
    parameters: Annotated[
        list[int] | None,
        typer.Option(
            "--parameters",
            help="A number of parameters of the model. Can be given several times.",
            show_default="0.4, 11.17 and 25.56 million",
        ),
    ] = None,
    algorithms: Algorithms = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="Set one hyper-parameter of one method. Can be given several times."
        ),
    ] = None,
    momentum: Annotated[
        float, typer.Option("--momentum", help="The momentum of the inner SGD, for all methods.")
    ] = 0.0,
    repeats: Repeats = 9,
    file: JsonFile = None,
) -> None:
    """Time full steps with given gradients, in processes on loopback, against one all-reduce and DDP."""
    from laconic.bench.step import measure_steps

    methods = algorithms_in(algorithms)
    sizes, worker_counts = tuple(dict.fromkeys(parameters or _SIZES)), tuple(dict.fromkeys(workers or (2, 4)))
    settings, _ = by_algorithm(methods, pairs(set_), {})
    check(repeats, file)
    for d in sizes:
        check_size("--parameters", d)
    for n in worker_counts:
        if not 2 <= n <= _MAX_WORKERS:
            raise ValueError(f"--workers {n} must be in 2 .. {_MAX_WORKERS}")
    if not 0 <= momentum < 1:
        raise ValueError(f"--momentum {momentum} must be in [0, 1)")
    refused = [
        f"{method}: {why}" for method in methods for d in sizes for n in worker_counts
        if (why := _refusal(method, settings.get(method, {}), d, n))
    ]  # fmt: skip
    if refused and algorithms:
        raise ValueError("; ".join(refused))
    methods = tuple(name for name in methods if not any(text.startswith(f"{name}: ") for text in refused))
    console = Console()
    rows: list[Measurement] = []
    for n in worker_counts:  # each table is printed as soon as it is measured, since all together take long
        rows += measured(
            console,
            lambda listen, n=n: measure_steps(  # type: ignore[misc]
                sizes, n, methods, repeats, settings=settings, momentum=momentum, listen=listen
            ),
        )
        for d in sizes:
            chosen = [row for row in rows if (row.name["workers"], row.name["parameters"]) == (n, d)]
            console.print(_table(chosen, n, d, repeats))
    shown = {
        "workers": list(worker_counts), "parameters": list(sizes), "repeats": repeats, "set": settings,
        "momentum": momentum,
        "threads": 1,
    }  # fmt: skip
    finish(console, "step", shown, rows, file, refused)


def _refusal(method: str, settings: dict[str, str], d: int, n: int) -> str:
    """Return why this method refuses `d` parameters on `n` processes, or an empty text."""
    from laconic.contract import ALGORITHMS, ModelSpec

    algorithm = from_text(ALGORITHMS[method], settings, method)
    try:
        algorithm.check_size(ModelSpec.of_sizes(d), n)
    except ValueError as error:
        return f"{d:,} parameters, {n} processes: {error}"
    return ""


def _table(rows: Sequence[Measurement], n: int, d: int, repeats: int) -> Table:
    base_s = next(row for row in rows if row.name["step"] == "all-reduce").details["base_s"]
    table = bench_table(
        f"step: {n} processes, {d:,} parameters, median of {repeats}; base {seconds_text(base_s)}",
        "base: all-reduce of a flat gradient, and the optimizer's step. times: time over the base, measured in turns. "
        "gathered: the base from one tensor per parameter, as the methods get it, and with the mean. ddp includes "
        "forward and backward, no_sync is these alone; their difference is exchange and update. "
        "*: more than the bar. encode, wait, decode: ms of one step, mean over ranks",
        ["step"], ["takes", "times", "quartiles", "bar", "encode", "wait", "decode"],
    )  # fmt: skip
    for row in rows:
        phases = row.details["phases"]
        spent = ["", "", ""] if phases is None else [f"{1e3 * phases[key]:.3g}" for key in ("encode", "wait", "decode")]
        table.add_row(
            str(row.name["step"]), seconds_text(max(0.0, row.median * row.details["base_s"])), f"{row.median:.3g}",
            quartiles_text(row), bar_text(row.median, row.details["bar"]), *spent,
        )  # fmt: skip
    return table
