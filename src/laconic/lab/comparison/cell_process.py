"""A cell of a comparison in its process: it trains, and writes the folder of the run itself.

Cells that differ only in the network are trained once, and each is written with the seconds of its own network.
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from laconic.contract import load_plugins
from laconic.lab.comparison.memory import (
    MemoryLimitError,
    highest_bytes,
    is_lack_of_memory,
    limit_this_process,
    resident_bytes,
)
from laconic.lab.own_results import own_files
from laconic.lab.processes.pool import Figures, Reporter
from laconic.lab.runs.files import RunFiles
from laconic.lab.runs.logged_run import LogPlan
from laconic.lab.runs.measure import measure_of
from laconic.lab.runs.record import Record, Row
from laconic.lab.runs.rounds import RoundRow
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.run_so_far import RunProgress
from laconic.lab.runs.settings import RunSettings
from laconic.statements import warn
from laconic.telemetry.count_table import VIRTUAL
from laconic.training.simulation import Simulation
from laconic.units import bytes_text


def train_cells(
    report: Reporter,
    cells: Sequence[tuple[RunSettings, Path]],
    plugins: Sequence[str],
    memory_bytes: int | None,
    logs: LogPlan | None,
) -> Figures:
    """Train cells at once and write their folders, which then hold nothing of an earlier attempt.

    Args:
        report: Gets the progress.
        cells: The run of each and its folder. They differ only in the network.
        plugins: Files with algorithms.
        memory_bytes: What this process may take; None for no bound.
        logs: Where it logs; None for nowhere.

    Returns:
        How much memory it took, and what it warned of.

    Raises:
        MemoryLimitError: There was not enough memory.
    """
    start_bytes = resident_bytes() or 0
    limit_this_process(memory_bytes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", UserWarning)
        try:
            load_plugins(plugins)
            for _, folder in cells:
                _remove_earlier(folder)
            _train(report, cells, logs)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
            bound = "" if memory_bytes is None else f"; it may take {bytes_text(memory_bytes)}, see --memory"
            raise MemoryLimitError(f"there was no memory left for it{bound} ({error!s:.100})") from error
    highest = highest_bytes()
    return {
        "peak_memory_bytes": highest,
        "own_bytes": max(0, (highest or 0) - start_bytes),
        "warnings": list(dict.fromkeys(str(each.message) for each in caught)),
    }


def _train(report: Reporter, cells: Sequence[tuple[RunSettings, Path]], logs: LogPlan | None) -> None:
    (settings, folder), *others = cells
    files, timed = RunFiles(folder, settings), [_TimedRun(*each) for each in others]
    measure, measured = measure_of(settings), ""

    def listen(progress: RunProgress) -> None:
        nonlocal measured
        if progress.step == 1:
            for each in (files, *(other.files for other in timed)):
                each.begin()
        if progress.row is not None:
            files.add(progress.row, progress.rounds)
            for other in timed:
                other.add(progress.row, progress.rounds)
            measured = f"{measure.short} {measure.text(progress.row)}"
        if progress.warning:
            warn(progress.warning)
        report(progress.step, progress.steps, measured)

    def watch(simulation: Simulation) -> None:
        for other in timed:
            other.watch(simulation)

    record = run_simulated(settings, listen, logs=logs, watch=watch)
    files.finish(record)
    for other in timed:
        other.finish(record)


class _TimedRun:
    """A run that is not trained itself: another one on another network is, and this network's clock goes with it."""

    def __init__(self, settings: RunSettings, folder: Path) -> None:
        self.files = RunFiles(folder, settings)
        self._settings = settings
        self._seconds: list[float | None] = []  # after each round that is not in a file
        self._rows: list[Row] = []

    def watch(self, simulation: Simulation) -> None:
        """Time a simulation before its first round."""
        self._clock = simulation.driver.time_on(self._settings.link(), self._settings.compute_s())
        simulation.driver.recorder.observe(lambda stats: self._seconds.append(self._now_s))

    @property
    def _now_s(self) -> float | None:
        return self._clock.now_ns / 1e9 or None

    def add(self, row: Row, rounds: Sequence[RoundRow]) -> None:
        """Write an epoch and its rounds, with the seconds on this network."""
        self._rows.append(replace(row, seconds=self._now_s))
        timed = [replace(each, seconds=seconds) for each, seconds in zip(rounds, self._seconds, strict=True)]
        self._seconds.clear()
        self.files.add(self._rows[-1], timed)

    def finish(self, record: Record) -> None:
        """Write the record of the run that was trained as the one of this network."""
        traffic = replace(record.traffic, seconds={VIRTUAL: self._now_s or 0.0})
        self.files.finish(replace(record, settings=self._settings, rows=self._rows, traffic=traffic))


def _remove_earlier(folder: Path) -> None:
    """Remove what a process that was killed has left."""
    for path in [*own_files(folder), *folder.glob(".*.part")]:
        with suppress(FileNotFoundError):
            path.unlink()
