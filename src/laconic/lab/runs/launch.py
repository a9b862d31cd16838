"""Runs experiments over processes of this machine, one process per rank."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch.distributed as dist

from laconic.contract import load_plugins
from laconic.lab.processes.ranks import Ranks
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.logged_run import LogPlan
from laconic.lab.runs.record import Record
from laconic.lab.runs.run import run_as_rank
from laconic.lab.runs.run_so_far import Listener, RunProgress
from laconic.lab.runs.saved import Saving
from laconic.lab.runs.settings import RunSettings

_SAY_EVERY_S = 0.1


def run_in_processes(
    plans: Sequence[RunSettings],
    listen: Listener,
    *,
    port: int = 0,
    plugins: Sequence[str] = (),
    finished: Callable[[Record], None] = lambda record: None,
    savings: Mapping[str, Saving] | None = None,
    logs: Mapping[str, LogPlan] | None = None,
) -> list[Record]:
    """Run the plans one after the other in the same processes, one per rank.

    Args:
        plans: The runs. All have the same data and number of processes.
        listen: Gets the progress of each run.
        port: The port at which the ranks meet on this machine; 0 takes a free one.
        plugins: Files with algorithms, which each process loads.
        finished: Gets each record as soon as its run is finished.
        savings: By algorithm, where its run saves itself and goes on from.
        logs: By algorithm, where its run logs.

    Returns:
        The records in the order of the plans.

    Raises:
        OptionError: The port is in use, or a run cannot go on from what is saved.
        LaunchError: A rank fails or ends.
    """
    n = plans[0].n_processes
    assert all(plan.n_processes == n for plan in plans)
    for plan in plans:
        experiment = Experiment(plan)  # refuses wrong data and sizes here, and warns, before any process starts
        if saving := (savings or {}).get(plan.algorithm):
            saving.read_checked(experiment)
    records: list[Record] = []
    with Ranks(n, _Training, tuple(plugins), timeout_s=plans[0].timeout_s, port=port) as ranks:
        for plan in plans:
            saving = (savings or {}).get(plan.algorithm)
            own_logs = (logs or {}).get(plan.algorithm)
            answer = ranks.call("run", settings=plan, saving=saving, logs=own_logs, listen=listen, decisive=0)[0]
            records.append(replace(answer, settings=plan))  # with the algorithm that is made here already
            finished(records[-1])
    return records


class _Training:
    """One rank, which runs all plans."""

    def __init__(self, plugins: Sequence[str]) -> None:
        warnings.simplefilter("ignore", UserWarning)  # the parent has shown them all
        load_plugins(plugins)

    def run(
        self, settings: RunSettings, saving: Saving | None, logs: LogPlan | None, report: Listener
    ) -> Record | None:
        """Run one plan. Only rank 0 reports, and returns the record."""
        if dist.get_rank() > 0:
            run_as_rank(settings, _nothing, saving)
            return None
        return run_as_rank(settings, _throttled(report), saving, logs)


def _throttled(send: Callable[[RunProgress], None]) -> Listener:
    """Return a listener that sends at most ten steps a second, and every row."""
    last = 0.0

    def say(progress: RunProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.row is not None or progress.earlier or progress.warning or now - last > _SAY_EVERY_S:
            last = now
            send(progress)

    return say


def _nothing(progress: RunProgress) -> None:
    pass
