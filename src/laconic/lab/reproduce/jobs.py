"""The parts of a published table that can be computed apart: one process for each, several at once."""

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from laconic.lab.children import LaunchError, end_all, interrupts_ignored

_SAY_EVERY_S = 0.2

Figures = dict[str, Any]  # what a job found, as JSON takes it


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job is. `note` is a short text beside the bar."""

    label: str
    done: int
    total: int
    note: str = ""


Tell = Callable[[int, int, str], None]  # done, total, note


@dataclass(frozen=True, kw_only=True)
class Job:
    """`work(tell, **arguments)` in a process of its own; a function of a module, so that it can be found there."""

    label: str
    work: Callable[..., Figures]
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Failed:
    text: str


@dataclass(frozen=True)
class _Child:
    place: int  # of its job
    pipe: Connection
    process: BaseProcess


def run_jobs(jobs: Sequence[Job], at_once: int, listen: Callable[[Progress], None]) -> list[Figures]:
    """Each job's figures, in the order of the jobs; `at_once` processes with one thread each.

    Raises LaunchError when a job fails or its process dies; whatever happens, no process is left behind.
    """
    waiting = list(range(len(jobs)))[::-1]
    running: dict[Any, _Child] = {}
    found: dict[int, Figures] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                place = waiting.pop()
                child = _start(place, jobs[place])
                running[child.pipe] = child
            for child in [running[pipe] for pipe in wait(list(running))]:
                try:
                    said = child.pipe.recv()
                except (EOFError, OSError):
                    child.process.join()
                    del running[child.pipe]
                    if child.place not in found:
                        label, code = jobs[child.place].label, child.process.exitcode
                        raise LaunchError(f"{label}: its process ended with exit code {code}") from None
                    continue
                if isinstance(said, Progress):
                    listen(said)
                elif isinstance(said, _Failed):
                    raise LaunchError(f"{jobs[child.place].label}: {said.text}")
                else:
                    found[child.place] = said
    finally:
        end_all([child.process for child in running.values()])
    return [found[place] for place in range(len(jobs))]


def _start(place: int, job: Job) -> _Child:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, job), daemon=True)
    with interrupts_ignored():
        process.start()
    theirs.close()
    return _Child(place, ours, process)


def _run(pipe: Connection, job: Job) -> None:
    torch.set_num_threads(1)
    last = 0.0

    def tell(done: int, total: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done in (0, total) or now - last > _SAY_EVERY_S:
            last = now
            pipe.send(Progress(label=job.label, done=done, total=total, note=note))

    try:
        pipe.send(job.work(tell, **job.arguments))
    except Exception as error:
        pipe.send(_Failed(f"{type(error).__name__}: {error}"))
    finally:
        pipe.close()
