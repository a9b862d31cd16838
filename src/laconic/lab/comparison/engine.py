"""Trains the cells of a comparison, several at once, each in a process of its own with one thread.

A cell that is finished in the folder is not trained again, so a comparison that was killed goes on where it was. A cell
that fails leaves the others whole.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laconic.errors import LaunchError
from laconic.lab.comparison.cell_process import train_cells
from laconic.lab.comparison.cell_queue import CellQueue
from laconic.lab.comparison.checking import check_cells
from laconic.lab.comparison.cores import usable_cores
from laconic.lab.comparison.memory import available_bytes
from laconic.lab.comparison.plan import Cell, Comparison
from laconic.lab.comparison.results import CellResult, ResultFile, measured_before
from laconic.lab.comparison.shared import trained_together
from laconic.lab.processes.pool import Figures, PoolTask, TaskProgress, run_tasks
from laconic.lab.runs.files import read_record
from laconic.lab.runs.logged_run import LogPlan
from laconic.lab.runs.record import Record
from laconic.statements import LaconicWarning, warn


@dataclass(frozen=True, kw_only=True)
class ComparisonProgress:
    """What has happened to a cell."""

    cell: Cell
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


Listener = Callable[[ComparisonProgress], object]


def run_comparison(
    comparison: Comparison,
    folder: Path,
    *,
    jobs: int | None = None,
    memory_bytes: int | None = None,
    listen: Listener = lambda progress: None,
    plugins: Sequence[str] = (),
    logs: Sequence[str] = (),
    command: str = "",
) -> "ComparisonRun":
    """Train all cells that are not finished in the folder, and return what has become of them.

    Args:
        comparison: The cells.
        folder: Where each cell has a folder of its own, and `comparison.json` says what there is.
        jobs: The number of cells that are trained at once; by default one for each core.
        memory_bytes: What all processes together may take; by default most of what is free.
        listen: Gets the progress.
        plugins: Files with algorithms, which each process loads.
        logs: The kinds of logs that each cell writes.
        command: The command line that asked for it, for the record.

    Raises:
        OptionError: An option is wrong, or a folder holds a run with other settings. Nothing is trained.
        ValueError: Data or sizes do not fit the method. Nothing is trained.
        OSError: The results cannot be written.
    """
    run = ComparisonRun(comparison, folder, plugins=plugins, logs=logs, command=command)
    run.run(jobs=jobs, memory_bytes=memory_bytes, listen=listen)
    return run


class ComparisonRun:
    """The cells of a comparison and what has become of them."""

    def __init__(
        self,
        comparison: Comparison,
        folder: Path,
        *,
        plugins: Sequence[str] = (),
        logs: Sequence[str] = (),
        command: str = "",
    ) -> None:
        """Check every option of every cell, and take up what is finished. Arguments as for `run_comparison`."""
        self.comparison, self.folder = comparison, folder
        self.cells = comparison.cells()
        """All cells, in order."""
        self._plugins, self._logs = tuple(plugins), tuple(logs)
        self._file = ResultFile(folder, comparison, self.cells, command)
        self.results: dict[Cell, CellResult] = {}
        """What has become of each cell, in the order of the cells."""
        self.records: dict[Cell, Record] = {}
        """The finished runs, those that diverged among them."""
        self.memory_bytes = 0
        """The most that all processes had in memory at once in this call."""
        before = measured_before(folder)
        for cell in self.cells:
            self.results[cell] = CellResult()
            record = read_record(folder / cell.folder, cell.settings)
            if record is not None:
                known = before.get(cell.folder, CellResult())
                self._keep(cell, record, known.seconds, known.memory_bytes)
        self.taken_up = list(self.records)
        """The cells that were finished before."""

    @property
    def left(self) -> list[Cell]:
        """The cells that have not been trained."""
        return [cell for cell, result in self.results.items() if not result.is_trained]

    @property
    def failed(self) -> list[Cell]:
        """The cells that have failed."""
        return [cell for cell, result in self.results.items() if result.state == "failed"]

    def _keep(self, cell: Cell, record: Record, seconds: float | None, n_bytes: int | None) -> None:
        why = record.why_diverged
        self.records[cell] = record
        self.results[cell] = CellResult(
            state="diverged" if why else "finished", why=why, seconds=seconds, memory_bytes=n_bytes
        )

    def write(self) -> None:
        """Write what there is. Raises OSError if that cannot be."""
        self._file.write(self.results, self.memory_bytes)

    def run(
        self, *, jobs: int | None = None, memory_bytes: int | None = None, listen: Listener = lambda progress: None
    ) -> None:
        """Train what is left. Arguments and errors as for `run_comparison`."""
        left = self.left
        estimates = check_cells(left)
        self.write()
        memory_bytes = available_bytes() if memory_bytes is None else memory_bytes
        threads = max((cell.settings.threads * cell.settings.kernel_threads for cell in left), default=1)
        at_once = jobs or max(1, usable_cores() // threads)
        groups = [[cell] for cell in left] if self._logs else trained_together(left)
        progress = _Training(self, groups, at_once, CellQueue(
            {cell.name: cell.kind for cell in left}, estimates, memory_bytes
        ), listen)  # fmt: skip
        run_tasks(
            [self._task(group, memory_bytes) for group in groups], at_once, progress.reported, progress.finished,
            progress.failed, choose=progress.queue.choose, started=progress.started,
        )  # fmt: skip

    def _task(self, group: Sequence[Cell], memory_bytes: int | None) -> PoolTask:
        arguments: dict[str, Any] = {
            "cells": [(cell.settings, self.folder / cell.folder) for cell in group], "plugins": self._plugins,
            "memory_bytes": memory_bytes, "logs": self._log_plan(group[0]),
        }  # fmt: skip
        return PoolTask(label=group[0].name, work=train_cells, arguments=arguments)

    def _log_plan(self, cell: Cell) -> LogPlan | None:
        folder = (self.folder / cell.folder).absolute()
        return LogPlan(kinds=self._logs, folder=folder, name=cell.name) if self._logs else None


class _Training:
    """What is going on: it notes what each cell tells, and tells the listener."""

    def __init__(
        self, run: ComparisonRun, groups: Sequence[Sequence[Cell]], at_once: int, queue: CellQueue, listen: Listener
    ) -> None:
        self.queue = queue
        self._run, self._at_once, self._listen = run, at_once, listen
        self._groups = {group[0].name: group for group in groups}  # by the label of the task
        self._waiting = dict.fromkeys(self._groups)  # in order
        self._last: dict[str, TaskProgress] = {}

    def started(self, task: PoolTask, pid: int) -> None:
        del self._waiting[task.label]
        self.queue.started(task, pid)
        self._tell(TaskProgress(label=task.label, done=0, total=1))

    def reported(self, progress: TaskProgress) -> None:
        self.queue.progressed(progress.label, progress.done / (progress.total or 1))
        self._tell(progress)

    def finished(self, task: PoolTask, figures: Figures) -> None:
        group = self._groups[task.label]
        seconds = round(self.queue.ended(task.label, figures["own_bytes"]) / len(group), 3)
        for text in figures["warnings"]:
            with suppress(LaconicWarning):  # a warning that is an error here would cost the other cells
                warn(f"{task.label}: {text}")
        for cell in group:
            record = read_record(self._run.folder / cell.folder, cell.settings)
            assert record is not None, "its process has written it"
            self._run._keep(cell, record, seconds, figures["peak_memory_bytes"])
        self._ended(task.label)

    def failed(self, task: PoolTask, error: LaunchError) -> None:
        group = self._groups[task.label]
        seconds = round(self.queue.ended(task.label, None) / len(group), 3)
        why = str(error).removeprefix(f"{task.label}: ")
        if why.endswith("SIGKILL"):
            why += ", by the system or a user: there may have been no memory left"
        for cell in group:
            self._run.results[cell] = CellResult(state="failed", why=why, seconds=seconds)
        self._ended(task.label)

    def _ended(self, label: str) -> None:
        self._run.memory_bytes = self.queue.highest_bytes
        self._run.write()
        last = self._last.get(label, TaskProgress(label=label, done=0, total=1))
        for cell in self._groups[label]:
            self._tell(last, cell)

    def _tell(self, progress: TaskProgress, ended: Cell | None = None) -> None:
        self._last[progress.label] = progress
        results = self._run.results.values()
        self._listen(
            ComparisonProgress(
                cell=ended or self._groups[progress.label][0], done=progress.done, total=progress.total,
                note=progress.note, result=None if ended is None else self._run.results[ended],
                n_ended=sum(each.state != "not run" for each in results), n_cells=len(results),
                seconds_left=self.queue.seconds_left(list(self._waiting), self._at_once),
            )
        )  # fmt: skip
