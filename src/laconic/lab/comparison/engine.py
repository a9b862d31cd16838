"""Trains the cells of a comparison.

A cell that is finished in the folder is not trained again, so a comparison that was killed goes on where it was.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from laconic.lab.comparison.cell_process import SAVE_EVERY_S, train_cells
from laconic.lab.comparison.cell_runs import CellRuns, CellWork, Listener, Place
from laconic.lab.comparison.checking import check_cells
from laconic.lab.comparison.plan import Cell, Comparison
from laconic.lab.comparison.results import CellResult, ResultFile, measured_before
from laconic.lab.comparison.shared import trained_together
from laconic.lab.own_results import MIDWAY
from laconic.lab.processes.pool import Figures
from laconic.lab.runs.files import read_record
from laconic.lab.runs.logged_run import LogPlan
from laconic.lab.runs.record import Record
from laconic.lab.runs.rounds import FILE as ROUNDS
from laconic.lab.runs.rounds import rounds_in
from laconic.statements import warn


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
    place: Place | None = None,
    save_every_s: float = SAVE_EVERY_S,
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
        place: Where the cells are trained; by default on this machine.
        save_every_s: The seconds after which a cell saves itself, from which it goes on if it is killed.

    Raises:
        OptionError: An option is wrong, or a folder holds a run with other settings. Nothing is trained.
        ValueError: Data or sizes do not fit the method. Nothing is trained.
        OSError: The results cannot be written.
    """
    run = ComparisonRun(comparison, folder, plugins=plugins, logs=logs, command=command)
    run.run(jobs=jobs, memory_bytes=memory_bytes, listen=listen, place=place, save_every_s=save_every_s)
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
            record = self._finished(cell)
            if record is not None:
                known = before.get(cell.folder, CellResult())
                self._keep(cell, record, known.seconds, known.memory_bytes)
        self.taken_up = list(self.records)
        """The cells that were finished before."""

    def _finished(self, cell: Cell) -> Record | None:
        """Return the finished run of a cell; None if there is none, or not all of it."""
        folder = self.folder / cell.folder
        record = read_record(folder, cell.settings)
        if record is None:
            return None
        n_rounds = rounds_in(folder / ROUNDS)
        if n_rounds == record.traffic.rounds:
            return record
        warn(f"{folder / ROUNDS} has {n_rounds} of {record.traffic.rounds} rounds; {cell.name} is trained again")
        return None

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
        self,
        *,
        jobs: int | None = None,
        memory_bytes: int | None = None,
        listen: Listener = lambda progress: None,
        place: Place | None = None,
        save_every_s: float = SAVE_EVERY_S,
        all_started: Callable[[], object] = lambda: None,
    ) -> None:
        """Train what is left. Arguments and errors as for `run_comparison`; `all_started` as for `CellRuns`."""
        left = self.left
        estimates = check_cells(left)
        for cell in self.records:
            (self.folder / cell.folder / MIDWAY).unlink(missing_ok=True)  # of a process killed after its last step
        self.write()
        groups = [[cell] for cell in left] if self._logs else trained_together(left)
        by_name = {group[0].name: group for group in groups}

        def keep(work: CellWork, result: CellResult, figures: Figures | None) -> list[CellResult]:
            for cell in by_name[work.name]:
                self._note(cell, result)
            self.memory_bytes = runs.highest_bytes
            self.write()
            return [self.results[cell] for cell in by_name[work.name]]

        runs = CellRuns(
            [self._work(group, estimates[group[0].kind], save_every_s) for group in groups], keep, jobs=jobs,
            memory_bytes=memory_bytes, listen=listen, plugins=self._plugins,
            n_ended=len(self.cells) - len(left), place=place, all_started=all_started,
        )  # fmt: skip
        runs.run()

    def _note(self, cell: Cell, result: CellResult) -> None:
        """Note what has become of a cell that was trained, or not."""
        if result.state == "failed":
            self.results[cell] = result
            return
        record = read_record(self.folder / cell.folder, cell.settings)
        assert record is not None, "its process has written it"
        self._keep(cell, record, result.seconds, result.memory_bytes)

    def _work(self, group: Sequence[Cell], estimated_bytes: int, save_every_s: float) -> CellWork:
        cell = group[0]
        arguments: dict[str, Any] = {
            "root": self.folder, "cells": [(each.settings, each.folder) for each in group], "plugins": self._plugins,
            "logs": LogPlan(kinds=self._logs, name=cell.name) if self._logs else None, "save_every_s": save_every_s,
        }  # fmt: skip
        settings = cell.settings
        n_threads = settings.threads * max(settings.kernel_threads, settings.side_by_side or 1)
        return CellWork(
            names=tuple(each.name for each in group), kind=cell.kind, work=train_cells, arguments=arguments,
            estimated_bytes=estimated_bytes, threads=n_threads,
        )  # fmt: skip
