"""`laconic run` and `laconic compare`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from laconic.cli.progress_display import RunDisplay
from laconic.hyperparameters import near_misses
from laconic.lab.defaults import DECAY_AT, WARM_UP_FROM
from laconic.lab.processes.stopping import Stopped

if TYPE_CHECKING:
    from laconic.lab.runs.record import Record

Algorithm = Annotated[str, typer.Option("--algorithm", "-a", help="The method: a name that `laconic list` prints.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set one hyper-parameter of the method. Can be given several times."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(help="The number of workers. Under torchrun it is the number of processes.", show_default="4"),
]
Driver = Annotated[
    str | None,
    typer.Option(help="Where workers run: simulated (all in this process) or processes.", show_default="simulated"),
]
ServerAt = Annotated[
    str, typer.Option("--layout", help="Which rank serves: auto, allreduce, rank0, dedicated, sharded or peers.")
]
DatasetName = Annotated[
    str, typer.Option("--dataset", help="The data set: digits, mnist, fashion-mnist, csv or libsvm.")
]
Data = Annotated[
    str | None, typer.Option(metavar="PATH", help="The folder or file of the data set. The digits need none.")
]
Model = Annotated[str, typer.Option(help="The model: linear, mlp or cnn.")]
Epochs = Annotated[int, typer.Option(help="The number of passes over the data.")]
BatchSize = Annotated[int, typer.Option(help="The number of examples per worker and step.")]
LocalSteps = Annotated[int, typer.Option(metavar="H", help="The number of local SGD steps per exchange.")]
DenseEpochs = Annotated[
    float | None,
    typer.Option(metavar="E", help="The number of first epochs that send dense vectors, one step per exchange."),
]
Lr = Annotated[float | None, typer.Option(help="The learning rate of the inner SGD.", show_default="the method's own")]
LrSchedule = Annotated[str, typer.Option(help="How the learning rate changes: constant, cosine or step.")]
DecayAt = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="At which shares of the run `step` divides the learning rate by 10.",
        show_default=DECAY_AT,
    ),
]
WarmUpEpochs = Annotated[
    float | None, typer.Option(metavar="E", help="The number of first epochs over which the learning rate rises.")
]
WarmUpFrom = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="The share of the learning rate at which the warm-up starts.",
        show_default=f"{WARM_UP_FROM}",
    ),
]
WeightDecay = Annotated[
    float, typer.Option(help="The weight decay of the inner SGD, which is added after the exchange.")
]
Seed = Annotated[int, typer.Option(help="The seed of the data order, the initial parameters and all random draws.")]
Partition = Annotated[
    str,
    typer.Option(help="How workers share the data: resample (a new split each epoch) or fixed (one shard per worker)."),
]
Bandwidth = Annotated[
    str | None, typer.Option(metavar="BANDWIDTH", help="The bandwidth of each simulated link, such as 100Mbit.")
]
Latency = Annotated[str | None, typer.Option(metavar="TIME", help="The latency of each simulated link, such as 10ms.")]
Compute = Annotated[str | None, typer.Option(metavar="TIME", help="The simulated time of one gradient, such as 50ms.")]
Faults = Annotated[str | None, typer.Option(metavar="FILE", help="A fault plan: what goes wrong in the simulator.")]
Threads = Annotated[int, typer.Option(help="The number of torch threads per process.")]
KernelThreads = Annotated[
    int, typer.Option("--kernel-threads", help="The number of threads per process within a compiled kernel.")
]
Timeout = Annotated[float, typer.Option("--timeout-s", help="The number of seconds that a rank waits for another.")]
Port = Annotated[int, typer.Option(help="The port at which the processes meet on this machine; 0 takes a free one.")]
RecordTimes = Annotated[
    bool,
    typer.Option("--record-times", help="Write to times.csv when each rank computes, encodes, waits and decodes."),
]
Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The folder to write config, metrics, summary and curves to.")
]


def run(
    context: typer.Context,
    algorithm: Algorithm,
    set_: Set = None,
    workers: Workers = None,
    driver: Driver = None,
    layout: ServerAt = "auto",
    dataset: DatasetName = "digits",
    data: Data = None,
    model: Model = "mlp",
    epochs: Epochs = 10,
    batch_size: BatchSize = 32,
    local_steps: LocalSteps = 1,
    dense_epochs: DenseEpochs = None,
    lr: Lr = None,
    lr_schedule: LrSchedule = "constant",
    decay_at: DecayAt = None,
    warm_up_epochs: WarmUpEpochs = None,
    warm_up_from: WarmUpFrom = None,
    weight_decay: WeightDecay = 0.0,
    seed: Seed = 0,
    partition: Partition = "resample",
    bandwidth: Bandwidth = None,
    latency: Latency = None,
    compute: Compute = None,
    faults: Faults = None,
    threads: Threads = 1,
    kernel_threads: KernelThreads = 1,
    timeout_s: Timeout = 60.0,
    port: Port = 0,
    record_times: RecordTimes = False,
    out: Out = None,
) -> None:
    """Train one model with one algorithm. Under torchrun it joins the running processes."""
    if record_times and out is None:
        raise ValueError("--record-times writes times.csv, so it needs --out FOLDER")
    options = {
        "algorithm": algorithm, "set": pairs(set_), "workers": workers, "driver": driver, "layout": layout,
        "dataset": dataset, "data": data, "model": model, "epochs": epochs, "batch_size": batch_size,
        "local_steps": local_steps, "dense_epochs": dense_epochs, "lr": lr, "lr_schedule": lr_schedule,
        "decay_at": decay_at,
        "warm_up_epochs": warm_up_epochs, "warm_up_from": warm_up_from,
        "weight_decay": weight_decay, "seed": seed, "partition": partition,
        "bandwidth": bandwidth, "latency": latency, "compute": compute, "faults": faults,
        "threads": threads, "kernel_threads": kernel_threads, "timeout_s": timeout_s, "record_times": record_times,
    }  # fmt: skip
    records = execute([options], port, context.obj or (), lambda record: out)
    if records:
        report(records, out, batch_title=False)


def compare(
    context: typer.Context,
    algorithms: Annotated[list[str], typer.Argument(help="The methods to compare: names that `laconic list` prints.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME.KEY=VALUE", help="Set one hyper-parameter of one method. Can be given several times."
        ),
    ] = None,
    lr_of: Annotated[
        list[str] | None,
        typer.Option(
            "--lr-of", metavar="NAME=LR", help="Set the learning rate of one method. Can be given several times."
        ),
    ] = None,
    workers: Workers = None,
    driver: Driver = None,
    layout: ServerAt = "auto",
    dataset: DatasetName = "digits",
    data: Data = None,
    model: Model = "mlp",
    epochs: Epochs = 10,
    batch_size: BatchSize = 32,
    local_steps: LocalSteps = 1,
    dense_epochs: DenseEpochs = None,
    lr_schedule: LrSchedule = "constant",
    decay_at: DecayAt = None,
    warm_up_epochs: WarmUpEpochs = None,
    warm_up_from: WarmUpFrom = None,
    weight_decay: WeightDecay = 0.0,
    seed: Seed = 0,
    partition: Partition = "resample",
    bandwidth: Bandwidth = None,
    latency: Latency = None,
    compute: Compute = None,
    threads: Threads = 1,
    kernel_threads: KernelThreads = 1,
    timeout_s: Timeout = 60.0,
    port: Port = 0,
    out: Out = None,
) -> None:
    """Train the same model with several algorithms and print one table."""
    from laconic.contract import ALGORITHMS
    from laconic.lab.runs.settings import has_dense_rounds

    settings, learning_rates = by_algorithm(algorithms, pairs(set_), pairs(lr_of, "--lr-of"))
    # Only methods that have dense rounds get --dense-epochs. If none has, all get it and are refused.
    dense = {name for name in algorithms if name in ALGORITHMS and has_dense_rounds(name)} or set(algorithms)
    plans = [
        {
            "algorithm": name, "set": settings[name], "lr": learning_rates[name], "workers": workers, "driver": driver,
            "layout": layout, "dataset": dataset, "data": data, "model": model, "epochs": epochs,
            "batch_size": batch_size, "local_steps": local_steps,
            "dense_epochs": dense_epochs if name in dense else None, "lr_schedule": lr_schedule, "decay_at": decay_at,
            "warm_up_epochs": warm_up_epochs, "warm_up_from": warm_up_from,
            "weight_decay": weight_decay, "seed": seed, "partition": partition,
            "bandwidth": bandwidth, "latency": latency, "compute": compute,
            "threads": threads, "kernel_threads": kernel_threads, "timeout_s": timeout_s,
        }
        for name in algorithms
    ]  # fmt: skip
    records = execute(plans, port, context.obj or (), lambda record: out and out / record.settings.algorithm)
    if records:
        report(records, out, batch_title=True)


def execute(
    options: Sequence[dict[str, Any]],
    port: int,
    plugins: Sequence[str],
    folder_of: Callable[[Record], Path | None] = lambda record: None,
) -> list[Record]:
    """Check all options, then run each plan on its driver.

    Args:
        options: The arguments of `RunSettings`, one dictionary per run.
        port: The port at which the processes meet; 0 takes a free one.
        plugins: Files with algorithms, which each process loads.
        folder_of: Returns the folder of a record, or None. Each record is written as soon as its run is finished, so
            that it remains if the command is stopped.

    Returns:
        The records in the order of `options`; an empty list on ranks other than 0.
    """
    from laconic.lab.runs.launch import run_in_processes
    from laconic.lab.runs.run import run_simulated
    from laconic.lab.runs.settings import RunSettings
    from laconic.lab.runs.torchrun import is_under_torchrun

    records: list[Record] = []
    written: dict[str, Path] = {}

    def write(record: Record) -> None:
        if (folder := folder_of(record)) is not None:
            record.write(folder)
            written[record.settings.algorithm] = folder

    def finish(record: Record) -> None:
        records.append(record)
        write(record)

    try:
        if is_under_torchrun():
            _as_torchrun_rank(options, finish)
            return records
        plans = [RunSettings(**(asked | _given(asked, workers=4, driver="simulated"))) for asked in options]
        with RunDisplay() as display:
            if plans[0].driver == "processes":
                return run_in_processes(plans, display.listen, port=port, plugins=plugins, finished=finish)
            for plan in plans:
                finish(run_simulated(plan, display.listen))
            return records
    except Stopped as stopped:
        for record in records[len(written) :]:  # the signal interrupted its write
            write(record)
        if written:
            stopped.add_note(f"finished: {', '.join(f'{name} in {folder}' for name, folder in written.items())}")
        raise


def _given(asked: dict[str, Any], **defaults: Any) -> dict[str, Any]:  # noqa: ANN401
    return {key: default if asked[key] is None else asked[key] for key, default in defaults.items()}


def _as_torchrun_rank(options: Sequence[dict[str, Any]], finish: Callable[[Record], None]) -> None:
    """Run the plans as one rank of torchrun's processes. Only rank 0 prints and passes records to `finish`."""
    import torch.distributed as dist

    from laconic.lab.runs.run import run_as_rank
    from laconic.lab.runs.settings import RunSettings
    from laconic.lab.runs.torchrun import join_torchrun

    for asked in options:
        if asked["driver"] == "simulated":
            raise ValueError("--driver simulated runs in one process; start it without torchrun")
    n = join_torchrun(options[0]["timeout_s"])
    try:
        plans = []
        for asked in options:
            n_workers = n - (asked["layout"] == "dedicated")
            if asked["workers"] not in (None, n_workers):
                raise ValueError(
                    f"--workers {asked['workers']} does not fit the {n} processes that torchrun started with "
                    f"--layout {asked['layout']}; leave it out or give {n_workers}"
                )
            plans.append(RunSettings(**(asked | {"workers": n_workers, "driver": "processes"})))
        speaks = dist.get_rank() == 0
        if not speaks:
            warnings.simplefilter("ignore", UserWarning)  # rank 0 prints the same warnings
        with RunDisplay(shown=speaks) as display:
            for plan in plans:
                record = run_as_rank(plan, display.listen)
                if speaks:
                    finish(record)
    finally:
        dist.destroy_process_group()


def pairs(texts: Sequence[str] | None, option: str = "--set") -> dict[str, str]:
    """Return `KEY=VALUE` texts as a dictionary.

    Raises:
        ValueError: A text has no "=", or a key is given twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            raise ValueError(f"{option} {text!r} must have the form KEY=VALUE, such as keep=0.3")
        if key in found:
            raise ValueError(f"{option} {key} is given twice: {found[key]!r} and {value!r}")
        found[key] = value
    return found


def by_algorithm(
    names: Sequence[str], settings: dict[str, str], learning_rates: dict[str, str]
) -> tuple[dict[str, dict[str, str]], dict[str, float | None]]:
    """Group `NAME.KEY=VALUE` and `NAME=LR` by name.

    Raises:
        ValueError: A name is given twice or is not compared, or a learning rate is not a number.
    """
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        raise ValueError(f"{doubled[0]} is named twice; each algorithm can be compared once")
    for option, prefixes in (("--set", [key.partition(".")[0] for key in settings]), ("--lr-of", list(learning_rates))):
        for prefix in prefixes:
            if prefix not in names:
                known = list(names)
                raise ValueError(
                    f"{option} {prefix}: not among the algorithms compared ({', '.join(known)}); in a comparison "
                    f"keys start with the name, such as {known[0]}.KEY=VALUE{near_misses(prefix, known)}"
                )
    sorted_settings: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in settings.items():
        name, _, rest = key.partition(".")
        sorted_settings[name][rest] = value
    sorted_learning_rates: dict[str, float | None] = dict.fromkeys(names)
    for name, text in learning_rates.items():
        try:
            sorted_learning_rates[name] = float(text)
        except ValueError:
            raise ValueError(f"--lr-of {name}={text!r} must be a number above 0") from None
    return sorted_settings, sorted_learning_rates


def report(records: Sequence[Record], out: Path | None, *, batch_title: bool) -> None:
    """Print the table, and draw the curves into `out` if it is given."""
    from laconic.report.table import comparison, own_models

    console = Console()
    console.print(comparison(records))
    for record in records:
        if record.last.consensus_distance is not None:
            console.print(own_models(record), highlight=False)
        if record.traffic.faults:
            counted = ", ".join(f"{count} {kind}" for kind, count in sorted(record.traffic.faults.items()))
            console.print(f"{record.settings.algorithm}: faults: {counted}", highlight=False)
    if out is None:
        return
    from laconic.report.curves import draw_curves  # here, since matplotlib takes a second and a half to load

    if batch_title:
        for record in records:
            draw_curves([record], out / record.settings.algorithm / "curves.png")
    draw_curves(records, out / "curves.png")
    console.print(f"wrote {out}", highlight=False)
