"""`laconic run` and `laconic compare`."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import typer

from laconic.cli.compare_options import CompareOptions
from laconic.cli.flags import Given, with_flags
from laconic.cli.invocation import is_quiet, plugins_of
from laconic.cli.json_output import JsonOutput, json_output
from laconic.cli.launch_options import LaunchOptions
from laconic.cli.progress_display import RunDisplay
from laconic.cli.train_report import exit_if_diverged, figures_of, print_table, report
from laconic.errors import Named, OptionError
from laconic.lab.algorithms import algorithm_class
from laconic.lab.outputs import output_file, output_folder
from laconic.lab.processes.launcher import started_as_rank
from laconic.lab.processes.starting import start_template
from laconic.lab.processes.stopping import Stopped
from laconic.lab.runs.settings import RunSettings
from laconic.protocol.layout import n_nodes_for
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.lab.runs.batch import Batch

_OF_ONE_RUN = ("algorithm", "set")  # a comparison has these for each method


def _say_what_starts(batch: "Batch") -> None:
    """Say that processes start, and how many, once no option is wrong."""
    if batch.left and batch.left[0].driver == "processes":
        n = batch.left[0].n_processes
        terminal(stderr=True).print(f"starting {n} {'process' if n == 1 else 'processes'}")


def _before_run(context: typer.Context, given: dict[str, Any], launch: LaunchOptions) -> None:
    launch.check_results(launch.out)


def _before_compare(
    context: typer.Context, comparison: CompareOptions, given: dict[str, Any], launch: LaunchOptions
) -> None:
    comparison.check_given(given, launch)
    launch.check_results(comparison.folder(launch.out))
    if comparison.has_cells and comparison.on is None:
        start_template()  # which imports torch, as this process does next


@with_flags(Given(RunSettings), LaunchOptions, before_torch=_before_run)
def run(context: typer.Context, given: dict[str, Any], launch: LaunchOptions) -> None:
    """Train one model with one algorithm. Under torchrun it joins the running processes."""
    train(context, [given], launch)


@with_flags(CompareOptions, Given(RunSettings, without=_OF_ONE_RUN), LaunchOptions, before_torch=_before_compare)
def compare(context: typer.Context, comparison: CompareOptions, given: dict[str, Any], launch: LaunchOptions) -> None:
    """Train the same model with several algorithms and print one table."""
    if comparison.has_cells:
        from laconic.cli.comparison import compare_cells

        compare_cells(context, comparison, given, launch)
    else:
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
