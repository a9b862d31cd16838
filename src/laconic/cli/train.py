"""`laconic run` and `laconic compare`."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from laconic.cli.flags import Given, with_flags
from laconic.cli.invocation import is_quiet, plugins_of
from laconic.cli.json_output import JsonOutput, json_option, json_output
from laconic.cli.progress_display import RunDisplay
from laconic.cli.train_report import exit_if_diverged, figures_of, print_table, report
from laconic.errors import Named, OptionError
from laconic.lab.algorithms import OF_WARM_UP, algorithm_class, check_name, has_dense_rounds, settings_by_name
from laconic.lab.defaults import LOG_KINDS, PICTURE_ENDINGS
from laconic.lab.options import PURE_NUMBER, OptionGroup, file_of_kind, listed, option
from laconic.lab.outputs import check_old_results, output_file, output_folder
from laconic.lab.processes.launcher import started_as_rank
from laconic.lab.processes.stopping import Stopped
from laconic.lab.runs.settings import RunSettings
from laconic.protocol.layout import n_nodes_for
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.lab.runs.batch import Batch
    from laconic.lab.runs.logged_run import LogPlan
    from laconic.lab.runs.saved import Saving

_OF_ONE_RUN = ("algorithm", "set")  # a comparison has these for each method


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(OptionGroup):
    """Where the processes of a run meet, and where its files go."""

    port: int = option(
        0, "The port at which the processes meet on this machine; 0 takes a free one.", within="[0, 65535]",
        unit=PURE_NUMBER, hint="0 takes a free one",
    )  # fmt: skip
    out: Path | None = option(None, "The folder to write config, metrics, summary and curves to.", metavar="FOLDER")
    plot: tuple[Path, ...] = option(
        (), "A .png, .svg or .pdf file to draw the curves to. Can be given several times.", metavar="FILE",
        reads=file_of_kind(*PICTURE_ENDINGS),
    )  # fmt: skip
    log: tuple[str, ...] = option(
        (), f"Log every round and epoch to {listed(LOG_KINDS)}. Can be given several times.", metavar="KIND",
        choices=LOG_KINDS,
    )  # fmt: skip
    json: Path | None = json_option()
    config: Path | None = option(
        None, "A TOML file with options, such as the config.toml of a run. What is typed wins.", metavar="FILE"
    )
    overwrite: bool = option(False, "Replace the results of earlier runs in the folder of --out.")
    resume: bool = option(
        False, "Go on with the runs in the folder of --out, from their last saved epoch; what is finished is not run "
        "again.",
    )  # fmt: skip
    save_every: int | None = option(
        None, "The number of epochs after which each run saves itself in the folder of --out, for --resume.",
        within="[1, inf)", unit="epochs", metavar="E",
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Check that the options go together.

        Raises:
            OptionError: They do not.
        """
        super().__post_init__()
        check_old_results(self.out, overwrite=self.overwrite, resume=self.resume)
        if self.save_every is not None and self.out is None:
            raise OptionError(
                Named("save_every", self.save_every), " saves into a folder, so it needs ", Named("out"), " FOLDER"
            )

    def savings(self, names: Sequence[str], plugins: Sequence[str], *, in_folders: bool) -> "dict[str, Saving]":
        """Return where each run saves itself and goes on from, by method; nothing if it does neither."""
        from laconic.lab.runs.files import CHECKPOINT
        from laconic.lab.runs.saved import Saving

        if not (self.resume or self.save_every):
            return {}
        return {
            name: Saving(
                file=folder / CHECKPOINT, every=self.save_every, resume=self.resume, plugins=tuple(plugins)
            )
            for name, folder in self._folders(names, in_folders=in_folders).items()
        }  # fmt: skip

    def logs(self, names: Sequence[str], *, in_folders: bool) -> "dict[str, LogPlan]":
        """Return where each run logs, by method; nothing if it does not.

        Raises:
            OptionError: A kind of log is not installed, or needs a folder.
        """
        from laconic.lab.runs.logged_run import LogPlan, check_logs

        check_logs(self.log, self.out)
        folders = self._folders(names, in_folders=in_folders)
        return {name: LogPlan(kinds=self.log, folder=folders.get(name)) for name in names} if self.log else {}

    def _folders(self, names: Sequence[str], *, in_folders: bool) -> dict[str, Path]:
        """Return the folder of each run, by method; nothing without --out."""
        if self.out is None:
            return {}
        return {name: self.out.absolute() / name if in_folders else self.out.absolute() for name in names}


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
            plans.append({key: value for key, value in shared.items() if key not in OF_WARM_UP or name in dense} | own)
        return plans


def _learning_rate(text: str) -> float | None:
    """Return a learning rate, or None if the text is none."""
    try:
        learning_rate = float(text)
    except ValueError:
        return None
    return learning_rate if 0 < learning_rate < math.inf else None


def _say_what_starts(batch: "Batch") -> None:
    """Say that processes start, and how many, once no option is wrong."""
    if batch.left and batch.left[0].driver == "processes":
        n = batch.left[0].n_processes
        terminal(stderr=True).print(f"starting {n} {'process' if n == 1 else 'processes'}")


@with_flags(Given(RunSettings), LaunchOptions)
def run(context: typer.Context, given: dict[str, Any], launch: LaunchOptions) -> None:
    """Train one model with one algorithm. Under torchrun it joins the running processes."""
    train(context, [given], launch)


@with_flags(CompareOptions, Given(RunSettings, without=_OF_ONE_RUN), LaunchOptions)
def compare(context: typer.Context, comparison: CompareOptions, given: dict[str, Any], launch: LaunchOptions) -> None:
    """Train the same model with several algorithms and print one table."""
    train(context, comparison.plans(given), launch, in_folders=True)


def train(
    context: typer.Context, options: Sequence[dict[str, Any]], launch: LaunchOptions, *, in_folders: bool = False
) -> None:
    """Check all options and the folder, run each plan on its driver, and print the table of those that finish.

    Args:
        context: The call of the command.
        options: The values of `RunSettings` that were given, one dictionary per run.
        launch: Where processes meet, and where files go.
        in_folders: Whether each run has a folder of its own, named by its method.

    Raises:
        LaconicError: A run has failed, or something could not be written. All that is finished is printed and, as far
            as that can be, written.
    """
    import laconic.report.table
    import laconic.report.table_notes  # noqa: F401 - a signal leaves no time to load it
    from laconic.lab.runs.batch import Batch
    from laconic.lab.runs.torchrun import place_under_torchrun

    if options[0].get("record_times") and launch.out is None:
        raise OptionError(Named("record_times", True), " writes times.csv, so it needs ", Named("out"), " FOLDER")
    plugins = plugins_of(context)
    is_rank = started_as_rank()
    speaks = not is_rank or place_under_torchrun().rank == 0
    shows = speaks and not is_quiet(context)
    with ExitStack() as stack:
        names = [given["algorithm"] for given in options]
        logs = launch.logs(names, in_folders=in_folders) if speaks else {}
        file = stack.enter_context(json_output(launch.json if speaks else None))
        out = None
        if launch.out is not None and speaks:
            out = output_folder(launch.out, option="out", overwrite=launch.overwrite, resume=launch.resume)
            stack.enter_context(out)
        plots = [stack.enter_context(output_file(path, option="plot")) for path in launch.plot if speaks]

        savings = launch.savings(names, plugins, in_folders=in_folders)

        def batch_of(plans: Sequence[RunSettings]) -> Batch:
            return Batch(plans, out, in_folders=in_folders, resume=launch.resume, savings=savings, logs=logs)

        if is_rank:
            saves = {"--save-every": launch.save_every or 0, "--resume": launch.resume}
            batch = _as_torchrun_rank(options, plugins, batch_of, saves, file, shows=shows)
        else:
            batch = batch_of([RunSettings(**given) for given in options])
            if shows:
                _tell_what_is_taken_up(batch)
                _say_what_starts(batch)
            with _reporting_stops(batch, file), RunDisplay(shown=shows) as display:
                batch.run(display.listen, port=launch.port, plugins=plugins)
        if speaks:
            try:
                report(batch, launch.out, plots, file, shows=shows)
            except Stopped as stopped:
                for clause in batch.state():
                    stopped.add_note(clause)
                raise
            exit_if_diverged(batch.records)


def _tell_what_is_taken_up(batch: "Batch") -> None:
    for name in batch.begun_anew:
        terminal(stderr=True).print(f"{name} has nothing saved to go on from; it begins anew", soft_wrap=True)
    for record in batch.records:
        line = f"{batch.where(record.settings.algorithm)} is finished; it is not run again"
        terminal(stderr=True).print(line, soft_wrap=True)


@contextmanager
def _reporting_stops(batch: "Batch", file: JsonOutput) -> Iterator[None]:
    """Print the table of what is finished if a signal stops the block, and note where it is and what is missing."""
    try:
        yield
    except Stopped as stopped:
        batch.finish_writing()
        print_table(batch.records, lr_by_method=batch.in_folders, console=file.console)
        file.write(figures_of(batch))
        for clause in batch.state():
            stopped.add_note(clause)
        if batch.is_written and batch.left:
            stopped.add_note("the same command with --resume goes on from there")
        raise


def _as_torchrun_rank(
    options: Sequence[dict[str, Any]],
    plugins: Sequence[str],
    batch_of: "Callable[[Sequence[RunSettings]], Batch]",
    saves: Mapping[str, int | bool],
    file: JsonOutput,
    *,
    shows: bool,
) -> "Batch":
    """Run the plans as one rank of torchrun's processes, until one fails. Only rank 0 prints and writes."""
    import torch.distributed as dist

    from laconic.lab.runs.agreement import agree_on_plans, left_at_rank_0, refusals_of_command_shown
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
            batch = batch_of(plans)
        agree_on_plans(plans, plugins, timeout_s, saves)
        speaks = dist.get_rank() == 0
        if not speaks:
            warnings.simplefilter("ignore", UserWarning)  # rank 0 prints the same warnings
        if shows:
            _tell_what_is_taken_up(batch)
        left = left_at_rank_0(plans, batch.left)
        reporting = _reporting_stops(batch, file) if speaks else nullcontext()
        with reporting, RunDisplay(shown=shows) as display:
            listen = batch.listener(display.listen)
            try:
                for plan in left:
                    name = plan.algorithm
                    batch.finish(run_as_rank(plan, listen, batch.savings.get(name), batch.logs.get(name)))
            except Exception as error:
                if not speaks or not batch.records:
                    raise
                batch.fail(error)
        return batch
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
