"""Starts one process a rank on this machine, and sees every one of them to its end."""

import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from laconic.lab.children import LaunchError, end_all, interrupts_ignored
from laconic.lab.experiment import Experiment
from laconic.lab.record import Record
from laconic.lab.run import Listener, Progress, run_as_rank
from laconic.lab.settings import RunSettings
from laconic.plugins import load_plugins

_HOST = "127.0.0.1"
_SAY_EVERY_S = 0.1


@dataclass(frozen=True)
class _Failed:
    rank: int
    text: str


def run_in_processes(
    plans: Sequence[RunSettings], listen: Listener, *, port: int = 0, plugins: Sequence[str] = ()
) -> list[Record]:
    """Run the plans one after the other in the same processes, one a rank. Plans share data and workers.

    port: where the ranks meet on this machine; 0 for any that is free. plugins: files to load in each process.
    Raises ValueError for a port in use, LaunchError when a rank fails or dies.
    """
    n = plans[0].n_processes
    assert all(plan.n_processes == n for plan in plans)
    for plan in plans:
        Experiment(plan)  # refuses wrong data and sizes here, and warns, before any process starts
    store = _meeting_place(port, plans[0].timeout_s)
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(n)]
    crew: list[BaseProcess] = []
    try:
        with interrupts_ignored():
            for rank in range(n):
                process = context.Process(
                    target=_member, args=(pipes[rank][1], rank, n, store.port, list(plans), list(plugins)), daemon=True
                )
                process.start()
                crew.append(process)
        for _, theirs in pipes:
            theirs.close()
        return _listen([ours for ours, _ in pipes], crew, listen, len(plans))
    finally:
        end_all(crew)


def _meeting_place(port: int, timeout_s: float) -> TCPStore:
    """The store where ranks find each other. It lives in this process, so it outlives any rank."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port} must be between 0 and 65535 (0: any free one)")
    try:
        return TCPStore(_HOST, port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))
    except RuntimeError as error:
        raise ValueError(
            f"--port {port} is in use on {_HOST} (or not allowed); give another, or leave it out for a free one"
        ) from error


def _listen(pipes: list[Connection], crew: list[BaseProcess], listen: Listener, n_plans: int) -> list[Record]:
    """Pass on what the ranks say until each has closed its pipe."""
    ranks: dict[Any, int] = {pipe: rank for rank, pipe in enumerate(pipes)}
    records: list[Record] = []
    failures: list[_Failed] = []
    while ranks:
        for pipe in wait(list(ranks)):
            rank = ranks[pipe]
            try:
                said = pipes[rank].recv()
            except (EOFError, OSError):
                del ranks[pipe]
                crew[rank].join()
                if crew[rank].exitcode != 0 and not any(failure.rank == rank for failure in failures):
                    failures.append(_Failed(rank, f"ended with exit code {crew[rank].exitcode}"))
                continue
            if isinstance(said, Progress):
                listen(said)
            elif isinstance(said, Record):
                records.append(said)
            else:
                failures.append(said)
    if failures:
        # A rank that broke says why; the others only say for whom they waited.
        causes = [failure for failure in failures if "waited for" not in failure.text] or failures
        raise LaunchError("\n".join(f"rank {failure.rank}: {failure.text}" for failure in causes))
    assert len(records) == n_plans
    return records


def _member(pipe: Connection, rank: int, n: int, port: int, plans: list[RunSettings], plugins: list[str]) -> None:
    """A child process: one rank, through all plans."""
    code = 0
    warnings.simplefilter("ignore", UserWarning)  # the parent has said them all
    try:
        load_plugins(plugins)
        timeout = timedelta(seconds=plans[0].timeout_s)
        store = TCPStore(_HOST, port, is_master=False, timeout=timeout)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=n, timeout=timeout)
        say = _at_most_often(pipe.send) if rank == 0 else _nothing
        for plan in plans:
            record = run_as_rank(plan, say)
            if rank == 0:
                pipe.send(record)
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        pipe.send(_Failed(rank, f"{type(error).__name__}: {error}"))
        code = 1
    finally:
        pipe.close()
    if code:
        raise SystemExit(code)


def _at_most_often(send: Callable[[Progress], None]) -> Listener:
    """Steps can be faster than anybody reads; rows always pass."""
    last = 0.0

    def say(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.row is not None or now - last > _SAY_EVERY_S:
            last = now
            send(progress)

    return say


def _nothing(progress: Progress) -> None:
    pass
