"""`laconic plan`: which method and layout a network favors, and when plain all-reduce is best."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from laconic.cli.flags import with_flags
from laconic.cli.invocation import is_quiet, refuse_ranks
from laconic.cli.plan_options import PlanOptions
from laconic.errors import LaconicError, LaunchError, Named, OptionError
from laconic.lab.algorithms import algorithm_names, make_algorithm, settings_by_name
from laconic.lab.json_text import json_text
from laconic.lab.outputs import output_file
from laconic.lab.processes.launcher import started_as_rank
from laconic.report.terminal import terminal
from laconic.report.visible import visible

if TYPE_CHECKING:
    from laconic.contract import Algorithm, ModelSpec
    from laconic.planning.plan import Plan
    from laconic.planning.query import Query

_PRINTED = Path("-")
_PATIENCE_S = 120.0  # how long a rank waits for another


def _refuse_ranks(context: typer.Context, options: PlanOptions, *_: object) -> None:
    if not options.measure:
        refuse_ranks(context)


@with_flags(PlanOptions, before_torch=_refuse_ranks)
def plan(context: typer.Context, options: PlanOptions) -> None:
    """Predict step times on a network: which method and layout is fastest, and when plain all-reduce is."""
    import torch

    torch.set_num_threads(1)
    with ExitStack() as opened:
        files = {
            name: opened.enter_context(output_file(path, option=name))
            for name, path in (("json", options.json), ("plot", options.plot))
            if path is not None and path != _PRINTED and _prints(options)
        }
        answer = _answer(options, quiet=is_quiet(context))
        if answer is None:  # another rank prints
            return
        if options.json == _PRINTED:
            sys.stdout.write(json_text(answer.as_data(), ascii_only=True))
        else:
            _print(answer, options, notes=not is_quiet(context))
        if "json" in files:
            files["json"].write_text(json_text(answer.as_data()))
        if "plot" in files and options.plot is not None:
            files["plot"].write_bytes(_picture(answer, options.plot.suffix))
        for path in (options.json, options.plot):
            if path is not None and options.json != _PRINTED and not is_quiet(context):
                terminal().print(f"wrote {visible(str(path))}", soft_wrap=True)


def _prints(options: PlanOptions) -> bool:
    """Return whether this process prints and writes: every one, but for the later ranks of a measurement."""
    return not (options.measure and started_as_rank()) or os.environ["RANK"] == "0"


def _answer(options: PlanOptions, *, quiet: bool) -> "Plan | None":
    """Return the plan; None on a rank of a measurement that only takes part."""
    from laconic.planning.plan import candidates_of, judge

    measured = not options.no_measure
    if options.trace is not None:
        return _of_runs(options, options.trace)
    names = algorithm_names(options.methods)
    settings = settings_by_name(names, options.set)
    algorithms = {name: make_algorithm(name, settings[name]) for name in names}
    left_out = _without_shapes(algorithms, options)
    query = _query(options)
    if query is None:
        return None
    console = terminal(stderr=True, quiet=quiet)
    with console.status("measuring") as status:

        def listen(what: str) -> None:
            status.update(Text(f"measuring {what}" if measured else what))

        candidates = list(candidates_of(algorithms, query, measure=measured, listen=listen))
        status.update("timing")
        answer = judge(candidates, query, measured=measured)
    if left_out:
        console.print(f"left out, since --params says no shapes and --model does: {', '.join(left_out)}")
    return answer


def _without_shapes(algorithms: "dict[str, Algorithm]", options: PlanOptions) -> list[str]:
    """Remove the methods that need the shapes of parameters where only their number is known, and return their names.

    Raises:
        OptionError: Such a method was named.
    """
    needing = [name for name, algorithm in algorithms.items() if algorithm.needs_shapes and options.model is None]
    for name in needing:
        if name in options.methods:
            raise OptionError(
                f"{name}: what it sends depends on the shapes of the parameters, and ", Named("params"),
                " is only their number; give ", Named("model"), " NAME with ", Named("input_shape"), ", or ",
                Named("trace"), " FOLDER of a run",
            )  # fmt: skip
        del algorithms[name]
    return needing


def _query(options: PlanOptions) -> "Query | None":
    """Return what the plan is asked; None on a rank that only takes part in measuring it."""
    from laconic.planning.query import Query

    spec = options.spec()
    if options.measure:
        return _measured(options, spec)
    return Query(
        spec=spec, n_workers=options.n_workers, link=options.link, sites=options.joined_sites,
        latency_given=options.latency is not None, compute_s=options.compute_s, local_steps=options.local_steps or 1,
    )  # fmt: skip


def _measured(options: PlanOptions, spec: "ModelSpec") -> "Query | None":
    """Measure the network between the ranks that torchrun started, and a gradient of the model.

    Raises:
        OptionError: torchrun has not started this process, or as many ranks as --workers says.
        LaunchError: The ranks do not meet.
        PeerLostError: A rank is lost.
    """
    import torch.distributed as dist

    from laconic.lab.runs.torchrun import join_torchrun, place_under_torchrun
    from laconic.planning.measure import gradient_s, measure_network
    from laconic.planning.query import Query

    if not started_as_rank():
        raise OptionError(
            Named("measure"), " measures between the processes that torchrun starts, for instance: torchrun "
            "--nproc-per-node 4 -m laconic plan --measure --model mlp --input-shape 784",
        )  # fmt: skip
    n_workers = place_under_torchrun().size
    if n_workers < 2 or options.workers not in (None, n_workers):
        started = f"{n_workers} rank{'s' * (n_workers != 1)}"
        if n_workers < 2:
            raise OptionError(Named("measure"), f": torchrun started {started}; at least 2 have a network between them")
        raise OptionError(Named("workers", options.workers), f": torchrun started {started}; leave it out")
    join_torchrun(_PATIENCE_S)
    rank, compute_s = dist.get_rank(), options.compute_s
    try:
        found = measure_network(_PATIENCE_S)
        if compute_s is None and options.model is not None:
            compute_s = gradient_s(options.model, options.shape, options.classes, options.batch_size, _PATIENCE_S)
    except RuntimeError as error:
        if isinstance(error, LaconicError):
            raise
        lost = f"rank {rank}: another rank was lost while the network was measured ({error!s:.200})"
        raise LaunchError(lost) from error
    dist.destroy_process_group()
    if rank > 0:
        return None
    return Query(
        spec=spec, n_workers=n_workers, link=found.link, compute_s=compute_s, local_steps=options.local_steps or 1,
        measured=found.links, ranks_per_core=found.ranks_per_core,
    )  # fmt: skip


def _of_runs(options: PlanOptions, folder: Path) -> "Plan":
    from laconic.planning.plan import judge
    from laconic.planning.recorded import read_recorded

    runs = read_recorded(folder)
    sites, latency_given = options.joined_sites, options.latency is not None
    for run in runs:
        if sites is not None and sum(sites.sizes) != run.n_workers:
            raise OptionError(
                Named("sites", options.sites), f" has {sum(sites.sizes)} workers, and the run in ",
                Named("trace", folder), f" has {run.n_workers}",
            )  # fmt: skip
    queries = [run.query(options.link, options.compute_s, sites=sites, latency_given=latency_given) for run in runs]
    for run, query in zip(runs, queries, strict=True):
        if query != queries[0]:
            raise OptionError(
                Named("trace", folder),
                f": {runs[0].settings.algorithm} and {run.settings.algorithm} ran with another model, number of "
                "workers or compute time; give the folder of one of them",
            )
    measure = not options.no_measure
    candidates = [run.candidate(query, measure=measure) for run, query in zip(runs, queries, strict=True)]
    return judge(candidates, queries[0], measured=measure)


def _print(answer: "Plan", options: PlanOptions, *, notes: bool) -> None:
    from laconic.report.plan import SHOWN, plan_notes, plan_table, plan_title, python_lines

    n_shown = len(answer.choices) if options.all else SHOWN
    console = terminal()
    console.print(plan_title(answer), style="italic")
    console.print(plan_table(answer, n_shown))
    advice, *others = plan_notes(answer, n_shown)
    for note in [advice, *others] if notes else [advice]:
        console.print(note)
    console.print()
    for line in python_lines(answer, n_shown, options.lr):
        console.print(line, soft_wrap=True)


def _picture(answer: "Plan", ending: str) -> bytes:
    from laconic.planning.break_even import ladder
    from laconic.report.plan_picture import draw_plan  # here, since matplotlib takes a second and a half to load

    here = answer.query.bytes_per_s
    bandwidths = [bandwidth for bandwidth in ladder() if here / 1000 <= bandwidth <= 1000 * here]
    return draw_plan(answer, bandwidths, ending)
