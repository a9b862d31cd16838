"""Runs experiments over processes of this machine, one a rank."""

import time
import warnings
from collections.abc import Callable, Sequence

import torch.distributed as dist

from laconic.contract import load_plugins
from laconic.lab.processes.ranks import Ranks
from laconic.lab.runs.experiment import Experiment
from laconic.lab.runs.record import Record
from laconic.lab.runs.run import Listener, RunProgress, run_as_rank
from laconic.lab.runs.settings import RunSettings

_SAY_EVERY_S = 0.1


def run_in_processes(
    plans: Sequence[RunSettings],
    listen: Listener,
    *,
    port: int = 0,
    plugins: Sequence[str] = (),
    finished: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """Run the plans one after the other in the same processes, one a rank. Plans share data and workers.

    port: where the ranks meet on this machine; 0 for any that is free. plugins: files to load in each process.
    finished: gets each plan's record as soon as it is there.
    Raises ValueError for a port in use, LaunchError when a rank fails or dies.
    """
    n = plans[0].n_processes
    assert all(plan.n_processes == n for plan in plans)
    for plan in plans:
        Experiment(plan)  # refuses wrong data and sizes here, and warns, before any process starts
    records: list[Record] = []
    with Ranks(n, _Training, tuple(plugins), timeout_s=plans[0].timeout_s, port=port) as ranks:
        for plan in plans:
            records.append(ranks.call("run", settings=plan, listen=listen)[0])
            finished(records[-1])
    return records


class _Training:
    """One rank, through all plans."""

    def __init__(self, plugins: Sequence[str]) -> None:
        warnings.simplefilter("ignore", UserWarning)  # the parent has said them all
        load_plugins(plugins)

    def run(self, settings: RunSettings, report: Listener) -> Record | None:
        """Rank 0 alone reports, and has the record."""
        if dist.get_rank() > 0:
            run_as_rank(settings, _nothing)
            return None
        return run_as_rank(settings, _throttled(report))


def _throttled(send: Callable[[RunProgress], None]) -> Listener:
    """Steps can be faster than anybody reads; rows always pass."""
    last = 0.0

    def say(progress: RunProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.row is not None or now - last > _SAY_EVERY_S:
            last = now
            send(progress)

    return say


def _nothing(progress: RunProgress) -> None:
    pass
