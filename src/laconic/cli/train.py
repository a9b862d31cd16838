"""`laconic run` and `laconic compare`."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from laconic.cli.exit_codes import DIVERGED
from laconic.cli.flags import Given, with_flags
from laconic.cli.invocation import plugins_of
from laconic.cli.progress_display import RunDisplay
from laconic.errors import Named, OptionError
from laconic.lab.algorithms import algorithm_class, check_name, has_dense_rounds, settings_by_name
from laconic.lab.options import PURE_NUMBER, OptionGroup, option
from laconic.lab.processes.stopping import Stopped
from laconic.lab.runs.settings import RunSettings
from laconic.protocol.layout import n_nodes_for
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.lab.runs.record import Record

_OF_ONE_RUN = ("algorithm", "set", "lr", "faults", "record_times")  # of `laconic run` only


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(OptionGroup):
    """Where the processes of a run meet, and where its files go."""

    port: int = option(
        0, "The port at which the processes meet on this machine; 0 takes a free one.", within="[0, 65535]",
        unit=PURE_NUMBER, hint="0 takes a free one",
    )  # fmt: skip
    out: Path | None = option(None, "The folder to write config, metrics, summary and curves to.", metavar="FOLDER")
    config: Path | None = option(
        None, "A TOML file with options, such as the config.toml of a run. What is typed wins.", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class CompareOptions(OptionGroup):
    """The algorithms to compare, and what differs between them."""

    algorithms: tuple[str, ...] = option(
        ..., "The methods to compare: names that `laconic list` prints.", positional=True, names="methods"
    )
    set: dict[str, str] = option(
        {}, "Set one hyper-parameter of one method. Can be given several times.", metavar="NAME.KEY=VALUE"
    )
    lr_of: dict[str, str] = option(
        {}, "Set the learning rate of one method. Can be given several times.", metavar="NAME=LR"
    )

    def __post_init__(self) -> None:
        """Check names and learning rates.

        Raises:
            OptionError: A name is given twice or is not compared, or a learning rate is not a number above 0.
        """
        super().__post_init__()
        doubled = sorted({name for name in self.algorithms if self.algorithms.count(name) > 1})
        if doubled:
            raise OptionError(f"{doubled[0]} is named twice; each algorithm can be compared once")
        settings_by_name(self.algorithms, self.set)
        for name, text in self.lr_of.items():
            check_name(name, self.algorithms, option="lr_of")
            if _learning_rate(text) is None:
                raise OptionError(Named("lr_of", name), f"={text!r} must be a number above 0 and finite")

    def plans(self, shared: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the values of `RunSettings`, one dictionary per algorithm.

        Args:
            shared: The values that were typed for all of them.
        """
        for name in self.algorithms:
            algorithm_class(name)
        settings = settings_by_name(self.algorithms, self.set)
        # Only methods that have dense rounds get the dense epochs. If none has, all get them and are refused.
        dense = {name for name in self.algorithms if has_dense_rounds(name)} or frozenset(self.algorithms)
        plans = []
        for name in self.algorithms:
            own: dict[str, Any] = {"algorithm": name, "set": settings[name]}
            if name in self.lr_of:
                own["lr"] = _learning_rate(self.lr_of[name])
            plans.append({key: value for key, value in shared.items() if key != "dense_epochs" or name in dense} | own)
        return plans


def _learning_rate(text: str) -> float | None:
    """Return a learning rate, or None if the text is none."""
    try:
        learning_rate = float(text)
    except ValueError:
        return None
    return learning_rate if 0 < learning_rate < math.inf else None


@with_flags(Given(RunSettings), LaunchOptions)
def run(context: typer.Context, given: dict[str, Any], launch: LaunchOptions) -> None:
    """Train one model with one algorithm. Under torchrun it joins the running processes."""
    if given.get("record_times") and launch.out is None:
        raise OptionError(Named("record_times", True), " writes times.csv, so it needs ", Named("out"), " FOLDER")
    records = execute([given], launch.port, plugins_of(context), lambda record: launch.out)
    if records:
        report(records, launch.out, batch_title=False)
        exit_if_diverged(records)


@with_flags(CompareOptions, Given(RunSettings, without=_OF_ONE_RUN), LaunchOptions)
def compare(context: typer.Context, comparison: CompareOptions, given: dict[str, Any], launch: LaunchOptions) -> None:
    """Train the same model with several algorithms and print one table."""
    out = launch.out
    records = execute(
        comparison.plans(given),
        launch.port,
        plugins_of(context),
        lambda record: out and out / record.settings.algorithm,
    )
    if records:
        report(records, out, batch_title=True)
        exit_if_diverged(records)


def execute(
    options: Sequence[dict[str, Any]],
    port: int,
    plugins: Sequence[str],
    folder_of: Callable[["Record"], Path | None] = lambda record: None,
) -> "list[Record]":
    """Check all options, then run each plan on its driver.

    Args:
        options: The values of `RunSettings` that were given, one dictionary per run.
        port: The port at which the processes meet; 0 takes a free one.
        plugins: Files with algorithms, which each process loads.
        folder_of: Returns the folder of a record, or None. Each record is written as soon as its run is finished, so
            that it remains if the command is stopped.

    Returns:
        The records in the order of `options`; an empty list on ranks other than 0.
    """
    from laconic.lab.runs.launch import run_in_processes
    from laconic.lab.runs.run import run_simulated
    from laconic.lab.runs.torchrun import is_under_torchrun

    records: list[Record] = []
    written: dict[str, Path] = {}

    def write(record: "Record") -> None:
        if (folder := folder_of(record)) is not None:
            record.write(folder)
            written[record.settings.algorithm] = folder

    def finish(record: "Record") -> None:
        records.append(record)
        write(record)

    try:
        if is_under_torchrun():
            _as_torchrun_rank(options, plugins, finish)
            return records
        plans = [RunSettings(**given) for given in options]
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


def _as_torchrun_rank(
    options: Sequence[dict[str, Any]], plugins: Sequence[str], finish: Callable[["Record"], None]
) -> None:
    """Run the plans as one rank of torchrun's processes. Only rank 0 prints and passes records to `finish`."""
    import torch.distributed as dist

    from laconic.lab.runs.agreement import agree_on_plans, refusals_of_command_shown
    from laconic.lab.runs.run import run_as_rank
    from laconic.lab.runs.torchrun import join_torchrun

    for given in options:
        if given.get("driver") == "simulated":
            raise OptionError(Named("driver", "simulated"), " runs in one process; start it without torchrun")
    timeout_s = options[0].get("timeout_s", RunSettings.timeout_s)
    n = join_torchrun(timeout_s)
    try:
        with refusals_of_command_shown():
            plans = [RunSettings(**(given | _for_torchrun(given, n))) for given in options]
        agree_on_plans(plans, plugins, timeout_s)
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


def _for_torchrun(given: Mapping[str, Any], n: int) -> dict[str, Any]:
    """Return the driver, and the number of workers of a run on the `n` processes that torchrun started."""
    layout = given.get("layout", RunSettings.layout)
    workers = n - n_nodes_for(layout, algorithm_class(given["algorithm"]), 0)
    if given.get("workers", workers) != workers:
        raise OptionError(
            Named("workers", given["workers"]), f" does not fit the {n} processes that torchrun started with ",
            Named("layout", layout), f"; leave it out or give {workers}",
        )  # fmt: skip
    return {"workers": workers, "driver": "processes"}


def exit_if_diverged(records: "Sequence[Record]") -> None:
    """Leave the command with exit code 3 if a run diverged: a script must not take its figures for a result."""
    if any(record.why_diverged for record in records):
        raise typer.Exit(DIVERGED)


def report(records: "Sequence[Record]", out: Path | None, *, batch_title: bool) -> None:
    """Print the table, and draw the curves into `out` if it is given."""
    from laconic.report.table import comparison
    from laconic.report.table_notes import notes_on

    console = terminal()
    console.print(comparison(records))
    for note in notes_on(records, lr_by_method=batch_title):
        console.print(note)
    if out is None:
        return
    from laconic.report.curves import draw_curves  # here, since matplotlib takes a second and a half to load

    if batch_title:
        for record in records:
            draw_curves([record], out / record.settings.algorithm / "curves.png")
    draw_curves(records, out / "curves.png")
    console.print(f"wrote {out}")
