"""The parts of a published table that can be computed apart: one process for each, several at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

import torch

from laconic.lab.processes.supervise import Child, Report, end_all

_SAY_EVERY_S = 0.2

Figures = dict[str, Any]  # what a job found, as JSON takes it


@dataclass(frozen=True, kw_only=True)
class TaskProgress:
    """Where a job is. `note` is a short text beside the bar."""

    label: str
    done: int
    total: int
    note: str = ""


Reporter = Callable[[int, int, str], None]  # done, total, note


@dataclass(frozen=True, kw_only=True)
class Task:
    """`work(report, **arguments)` in a process of its own; a function of a module, so that it can be found there."""

    label: str
    work: Callable[..., Figures]
    arguments: Mapping[str, Any] = field(default_factory=dict)


def run_tasks(
    tasks: Sequence[Task],
    at_once: int,
    listen: Callable[[TaskProgress], None],
    finished: Callable[[Task, Figures], None] = lambda task, figures: None,
) -> list[Figures]:
    """Each job's figures, in the order of the jobs; `at_once` processes with one thread each.

    finished: gets each job's figures as soon as they are there.
    Raises LaunchError when a job fails or its process dies; whatever happens, no process is left behind.
    """
    waiting = list(enumerate(tasks))[::-1]
    running: dict[Any, tuple[int, Child]] = {}
    found: dict[int, Figures] = {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number, task = waiting.pop()
                child = Child(task.label, _Work, task)
                running[child.connection] = number, child
                child.request("run", {}, reports=True)
            for connection in wait(list(running)):
                number, child = running[connection]
                message = child.receive()
                if isinstance(message, Report):
                    listen(message.content)
                    continue
                if message.failure:
                    raise child.error(message)
                found[number] = message.result
                finished(tasks[number], message.result)
                del running[connection]
                end_all([child])
    finally:
        end_all([child for _, child in running.values()])
    return [found[number] for number in range(len(tasks))]


class _Work:
    """A job, in its process."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(1)
        self._job = task

    def run(self, report: Callable[[TaskProgress], None]) -> Figures:
        """Its figures. report: gets where it is, now and then."""
        last = 0.0

        def report_progress(done: int, total: int, note: str) -> None:
            nonlocal last
            now = time.monotonic()
            if done in (0, total) or now - last > _SAY_EVERY_S:
                last = now
                report(TaskProgress(label=self._job.label, done=done, total=total, note=note))

        return self._job.work(report_progress, **self._job.arguments)
