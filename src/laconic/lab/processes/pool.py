"""A pool of independent tasks: one process per task, several at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

import torch

from laconic.errors import LaunchError
from laconic.lab.processes.supervise import Child, Report, end_all

_SAY_EVERY_S = 0.2

Figures = dict[str, Any]  # the results of a task, as plain data for JSON


@dataclass(frozen=True, kw_only=True)
class TaskProgress:
    """The progress of a task."""

    label: str
    done: int
    total: int
    note: str = ""
    """A short text beside the progress bar."""


Reporter = Callable[[int, int, str], None]  # done, total, note


@dataclass(frozen=True, kw_only=True)
class PoolTask:
    """A call of `work(report, **arguments)` in a process of its own."""

    label: str
    work: Callable[..., Figures]
    """A function at the top of a module, since it is pickled by name."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    cores: int = 1
    """How many it uses, for who places tasks on machines."""


def run_tasks(
    tasks: Sequence[PoolTask],
    at_once: int,
    listen: Callable[[TaskProgress], None],
    finished: Callable[[PoolTask, Figures], None] = lambda task, figures: None,
    failed: Callable[[PoolTask, LaunchError], None] | None = None,
    choose: Callable[[Sequence[PoolTask]], PoolTask | None] = lambda waiting: waiting[0],
    started: Callable[[PoolTask, int], None] = lambda task, pid: None,
) -> list[Figures]:
    """Run the tasks in processes with one thread each. No process outlives the call.

    Args:
        tasks: The tasks.
        at_once: The number of processes that run at once.
        listen: Gets the progress of each task.
        finished: Gets each task's figures as soon as the task is finished.
        failed: Gets each task that fails or whose process ends, and why; the others go on. None ends them all.
        choose: Gets the tasks that wait, in order, and returns the next to start; None to wait until one ends, which
            is only allowed while one runs.
        started: Gets each task whose process has started, and the process id.

    Returns:
        The figures of each task that has not failed, in the order of `tasks`.

    Raises:
        LaunchError: A task fails or its process ends, and `failed` is None.
    """
    waiting = list(tasks)
    running: dict[Any, tuple[int, Child]] = {}
    found: dict[int, Figures] = {}
    numbers = {id(task): number for number, task in enumerate(tasks)}
    try:
        while waiting or running:
            while waiting and len(running) < at_once and (task := choose(waiting)) is not None:
                waiting = [each for each in waiting if each is not task]
                child = Child(task.label, _Work, task)
                running[child.connection] = numbers[id(task)], child
                started(task, child.pid)
                child.request("run", {}, reports=True)
            assert running, "`choose` waits, and nothing runs"
            for connection in wait(list(running)):
                number, child = running[connection]
                message = child.receive()
                if isinstance(message, Report):
                    listen(message.content)
                    continue
                if message.failure:
                    if failed is None:
                        raise child.error(message)
                    failed(tasks[number], child.error(message))
                else:
                    found[number] = message.result
                    finished(tasks[number], message.result)
                del running[connection]
                end_all([child])
    finally:
        end_all([child for _, child in running.values()])
    return [found[number] for number in sorted(found)]


class _Work:
    """A task, in its process."""

    def __init__(self, task: PoolTask) -> None:
        torch.set_num_threads(1)
        self._job = task

    def run(self, report: Callable[[TaskProgress], None]) -> Figures:
        """Return the figures of the task. `report` gets its progress from time to time."""
        last = 0.0

        def report_progress(done: int, total: int, note: str) -> None:
            nonlocal last
            now = time.monotonic()
            if done in (0, total) or now - last > _SAY_EVERY_S:
                last = now
                report(TaskProgress(label=self._job.label, done=done, total=total, note=note))

        return self._job.work(report_progress, **self._job.arguments)
