"""Runs the works of cells, several at once, each in a process of its own: those of comparisons and of published items.

A work that fails leaves the others whole. The longest ones are started first, as many as memory has room for.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from laconic.errors import LaunchError
from laconic.lab.comparison.cell_process import in_cell_process
from laconic.lab.comparison.cell_queue import CellQueue
from laconic.lab.comparison.cores import usable_cores
from laconic.lab.comparison.memory import available_bytes
from laconic.lab.comparison.results import CellResult
from laconic.lab.processes.pool import Figures, PoolTask, TaskProgress, run_tasks
from laconic.statements import LaconicWarning, warn


@dataclass(frozen=True, kw_only=True, eq=False)
class CellWork:
    """What a process does for a cell, or for several that are trained at once."""

    names: tuple[str, ...]
    """Of its cells. Messages call it by the first one."""
    kind: str
    """Works of one kind take about the same time and memory."""
    work: Callable[..., Figures]
    """Called as `work(report, **arguments)`: a function at the top of a module, since it is pickled by name."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    estimated_bytes: int = 0
    """The memory that it is thought to take until one of its kind has been measured."""
    threads: int = 1

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.names[0]


@dataclass(frozen=True, kw_only=True)
class CellProgress:
    """What has happened to a cell."""

    name: str
    done: int
    """Steps that are taken."""
    total: int
    note: str
    """Its accuracy so far."""
    result: CellResult | None
    """What has become of it, once it has ended."""
    n_ended: int
    """Cells that have ended, those of earlier calls among them."""
    n_cells: int
    seconds_left: float | None
    """The estimated time until all have ended."""


Listener = Callable[[CellProgress], object]
Keeper = Callable[[CellWork, CellResult, Figures | None], Sequence[CellResult]]
"""Gets a work that has ended, what has become of it, and the figures of one that has not failed. It returns the result
of each of its cells."""


class Place(Protocol):
    """Where the processes are."""

    bounds_memory: bool
    """Whether the place itself keeps processes within the memory that there is."""

    def cores(self) -> int:
        """Return the number of cores there."""

    def run(
        self,
        tasks: Sequence[PoolTask],
        at_once: int,
        listen: Callable[[TaskProgress], None],
        finished: Callable[[PoolTask, Figures], None],
        failed: Callable[[PoolTask, LaunchError], None],
        choose: Callable[[Sequence[PoolTask]], PoolTask | None],
        started: Callable[[PoolTask, int | None], None],
    ) -> object:
        """Run tasks as `laconic.lab.processes.pool.run_tasks`."""


class Here:
    """This machine."""

    bounds_memory = False
    cores = staticmethod(usable_cores)
    run = staticmethod(run_tasks)


class CellRuns:
    """The works that go on, and what is told of them."""

    def __init__(
        self,
        works: Sequence[CellWork],
        keep: Keeper,
        *,
        jobs: int | None = None,
        memory_bytes: int | None = None,
        listen: Listener = lambda progress: None,
        plugins: Sequence[str] = (),
        n_ended: int = 0,
        place: Place | None = None,
        all_started: Callable[[], object] = lambda: None,
    ) -> None:
        """Start nothing yet.

        Args:
            works: What is to be done.
            keep: Gets each work as soon as it has ended.
            jobs: The number of works at once; by default one for each core.
            memory_bytes: What all processes together may take; by default most of what is free.
            listen: Gets the progress.
            plugins: Files with algorithms, which each process loads.
            n_ended: The number of cells that have ended before.
            place: Where the processes are; None for this machine.
            all_started: Called once when nothing waits any more: what comes after the works can be prepared.
        """
        self._place = place or Here()
        if memory_bytes is None and not self._place.bounds_memory:
            memory_bytes = available_bytes()
        self._works = {work.name: work for work in works}
        threads = max((work.threads for work in works), default=1)
        self._at_once = jobs or max(1, self._place.cores() // threads)
        self._tasks = [
            PoolTask(
                label=work.name, work=in_cell_process, arguments={
                    "work": work.work, "arguments": work.arguments, "plugins": tuple(plugins),
                    "memory_bytes": memory_bytes,
                }, cores=work.threads,
            )
            for work in works
        ]  # fmt: skip
        self._queue = CellQueue(
            {work.name: work.kind for work in works}, {work.kind: work.estimated_bytes for work in works}, memory_bytes
        )
        self._keep, self._listen, self._all_started = keep, listen, all_started
        self._n_ended, self._n_cells = n_ended, n_ended + sum(len(work.names) for work in works)
        self._waiting = dict.fromkeys(self._works)  # in order
        self._last: dict[str, TaskProgress] = {}

    @property
    def highest_bytes(self) -> int:
        """The most that all processes had in memory at once; 0 where they are on other machines."""
        return 0 if self._place.bounds_memory else self._queue.highest_bytes

    def run(self) -> None:
        """Run all works. No process outlives the call."""
        if not self._waiting:
            self._all_started()
        self._place.run(
            self._tasks, self._at_once, self._reported, self._finished, self._failed, self._queue.choose, self._started
        )

    def _started(self, task: PoolTask, pid: int | None) -> None:
        del self._waiting[task.label]
        self._queue.started(task, pid)
        self._tell(TaskProgress(label=task.label, done=0, total=1))
        if not self._waiting:
            self._all_started()

    def _reported(self, progress: TaskProgress) -> None:
        self._queue.progressed(progress.label, progress.done / (progress.total or 1))
        self._tell(progress)

    def _finished(self, task: PoolTask, found: Figures) -> None:
        figures = found["figures"]
        for text in found["warnings"]:
            with suppress(LaconicWarning):  # a warning that is an error here would cost the other cells
                warn(f"{task.label}: {text}")
        seconds = self._queue.ended(task.label, found["own_bytes"]) + figures.get("earlier_s", 0.0)
        memory_bytes = found["peak_memory_bytes"]
        self._end(task.label, CellResult(state="finished", seconds=seconds, memory_bytes=memory_bytes), figures)

    def _failed(self, task: PoolTask, error: LaunchError) -> None:
        seconds, why = self._queue.ended(task.label, None), str(error).removeprefix(f"{task.label}: ")
        if why.endswith("SIGKILL"):
            why += ", by the system or a user: there may have been no memory left"
        self._end(task.label, CellResult(state="failed", why=why, seconds=seconds), None)

    def _end(self, label: str, result: CellResult, figures: Figures | None) -> None:
        work = self._works[label]
        results = self._keep(work, result.shared_by(len(work.names)), figures)
        last = self._last.get(label, TaskProgress(label=label, done=0, total=1))
        for name, each in zip(work.names, results, strict=True):
            self._n_ended += 1
            self._tell(last, name, each)

    def _tell(self, progress: TaskProgress, name: str | None = None, result: CellResult | None = None) -> None:
        self._last[progress.label] = progress
        self._listen(
            CellProgress(
                name=name or progress.label, done=progress.done, total=progress.total, note=progress.note,
                result=result, n_ended=self._n_ended, n_cells=self._n_cells,
                seconds_left=self._queue.seconds_left(list(self._waiting), self._at_once),
            )
        )  # fmt: skip
