"""A cell in its process: it trains, saves itself on the way, and writes the folder of the run itself.

Cells that differ only in the network are trained once, and each is written with the seconds of its own network.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from laconic.contract import load_plugins
from laconic.errors import OptionError, SavedRunError
from laconic.lab.comparison.memory import (
    MemoryLimitError,
    highest_bytes,
    is_lack_of_memory,
    limit_this_process,
    resident_bytes,
)
from laconic.lab.comparison.timed_run import TimedRun
from laconic.lab.own_results import MIDWAY, own_files
from laconic.lab.processes.pool import Figures, Reporter
from laconic.lab.runs.files import RunFiles
from laconic.lab.runs.logged_run import LogPlan
from laconic.lab.runs.looks import LookPlan
from laconic.lab.runs.measure import measure_of
from laconic.lab.runs.rounds import FILE as ROUNDS
from laconic.lab.runs.rounds import rounds_in
from laconic.lab.runs.run import look_at_simulated, run_simulated
from laconic.lab.runs.run_so_far import RunProgress
from laconic.lab.runs.saved import Saving, check_saving
from laconic.lab.runs.saved_checks import refusal
from laconic.lab.runs.settings import RunSettings
from laconic.statements import warn
from laconic.units import bytes_text

SAVE_EVERY_S = 60.0
"""Seconds between two saves of a cell."""
_T = TypeVar("_T")


def in_cell_process(
    report: Reporter,
    work: Callable[..., Figures],
    arguments: Mapping[str, Any],
    plugins: Sequence[str],
    memory_bytes: int | None,
) -> Figures:
    """Do the work of a cell in this process, which may take so much memory.

    Args:
        report: Gets the progress.
        work: Called as `work(report, **arguments)`.
        arguments: The arguments.
        plugins: Files with algorithms.
        memory_bytes: What this process may take; None for no bound.

    Returns:
        "figures", those of the work, how much memory it took, and what it warned of.

    Raises:
        MemoryLimitError: There was not enough memory.
    """
    start_bytes = resident_bytes() or 0
    limit_this_process(memory_bytes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", UserWarning)
        try:
            load_plugins(plugins)
            figures = work(report, **arguments)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
            bound = "" if memory_bytes is None else f"; it may take {bytes_text(memory_bytes)}, see --memory"
            raise MemoryLimitError(f"there was no memory left for it{bound} ({error!s:.100})") from error
    highest = highest_bytes()
    return {
        "figures": figures,
        "peak_memory_bytes": highest,
        "own_bytes": max(0, (highest or 0) - start_bytes),
        "warnings": list(dict.fromkeys(str(each.message) for each in caught)),
    }


def train_cells(
    report: Reporter,
    root: Path,
    cells: Sequence[tuple[RunSettings, str]],
    plugins: Sequence[str],
    logs: LogPlan | None,
    save_every_s: float,
) -> Figures:
    """Train cells at once and write their folders.

    Args:
        report: Gets the progress.
        root: The folder of the comparison.
        cells: The run of each, and its folder in `root`. They differ only in the network.
        plugins: Files with algorithms, to which a saved cell belongs.
        logs: Where it logs, in its own folder; None for nowhere.
        save_every_s: Seconds between two saves.

    Returns:
        "earlier_s", the seconds that earlier processes have trained it until it was saved.
    """
    folder = root / cells[0][1]

    def train(saving: Saving | None) -> Figures:
        if saving is None or not saving.resume:
            for _, inner in cells:
                _remove_earlier(root / inner)
        training = _Training(report, root, cells)
        training.run(saving, None if logs is None else logs.within(folder))
        return {"earlier_s": training.earlier_s}

    return _going_on(train, cells[0][0], folder, plugins, save_every_s)


def look_at_cell(
    report: Reporter,
    settings: RunSettings,
    looks: LookPlan,
    folder: Path | None = None,
    save_every_s: float = SAVE_EVERY_S,
) -> Figures:
    """Train a cell and look at it every few steps.

    Args:
        report: Gets the progress.
        settings: The run.
        looks: When it is looked at.
        folder: Where it saves itself until it is finished; None for nowhere.
        save_every_s: Seconds between two saves.

    Returns:
        The figures of `look_at_simulated`.
    """
    accuracy = 0.0

    def listen(progress: RunProgress) -> None:
        nonlocal accuracy
        accuracy = accuracy if progress.look is None else progress.look["test_accuracy"]
        if progress.warning:
            warn(progress.warning)
        report(progress.step, progress.steps, f"accuracy {accuracy:.2%}")

    if folder is None:
        return look_at_simulated(settings, looks, listen)
    folder.mkdir(parents=True, exist_ok=True)
    figures = _going_on(
        lambda saving: look_at_simulated(settings, looks, listen, saving), settings, folder, (), save_every_s
    )
    (folder / MIDWAY).unlink(missing_ok=True)
    return figures


def _going_on(
    train: Callable[[Saving | None], _T],
    settings: RunSettings,
    folder: Path,
    plugins: Sequence[str],
    save_every_s: float,
) -> _T:
    """Train a cell from where it has saved itself, or from the start if that does not fit."""
    saving = _saving(settings, folder, plugins, save_every_s)
    if saving is None or not saving.file.exists():
        return train(saving)
    try:
        return train(replace(saving, resume=True))
    except SavedRunError as error:
        warn(f"{error}; it begins anew")
        saving.file.unlink()
        return train(saving)


def _saving(settings: RunSettings, folder: Path, plugins: Sequence[str], every_s: float) -> Saving | None:
    """Return where a cell saves itself; None if its method has no state that could be saved."""
    try:
        check_saving(settings)
    except OptionError:
        return None
    return Saving(file=folder / MIDWAY, every_s=every_s, plugins=tuple(plugins))


class _Training:
    """The training of cells that differ only in the network, and their files."""

    def __init__(self, report: Reporter, root: Path, cells: Sequence[tuple[RunSettings, str]]) -> None:
        self._settings, self._folder = cells[0][0], root / cells[0][1]
        self._files = RunFiles(self._folder, self._settings)
        self._timed = {folder: TimedRun(settings, root / folder) for settings, folder in cells[1:]}
        self._report, self._measure, self._measured = report, measure_of(self._settings), ""
        self._has_begun = False
        self.earlier_s = 0.0
        """Seconds that earlier processes have trained."""

    def run(self, saving: Saving | None, logs: LogPlan | None) -> None:
        record = run_simulated(self._settings, self._listen, saving, logs, self._timed)
        for timed in self._timed.values():
            timed.finish(record)
        self._files.finish(record)
        (self._folder / MIDWAY).unlink(missing_ok=True)

    def _listen(self, progress: RunProgress) -> None:
        if not self._has_begun:
            self._begin(progress)
        if progress.row is not None:
            self._files.add(progress.row, progress.rounds)
            for timed in self._timed.values():
                timed.add(progress)
            self._measured = f"{self._measure.short} {self._measure.text(progress.row)}"
        if progress.warning:
            warn(progress.warning)
        self._report(progress.step, progress.steps, self._measured)

    def _begin(self, progress: RunProgress) -> None:
        """Begin the files, of a run that goes on with the epochs that are done."""
        self._has_begun = True
        self.earlier_s = progress.earlier_s
        self._files.begin(progress.earlier)
        for timed in self._timed.values():
            timed.begin()
        n_rounds = progress.earlier[-1].round if progress.earlier else 0
        for folder in (self._folder, *(timed.folder for timed in self._timed.values())):
            if rounds_in(folder / ROUNDS) != n_rounds:
                raise refusal(
                    self._folder / MIDWAY, f"was saved after {n_rounds} rounds, and {folder / ROUNDS} is damaged"
                )


def _remove_earlier(folder: Path) -> None:
    """Remove what a process that was killed has left."""
    for path in [*own_files(folder), *folder.glob(".*.part")]:
        with suppress(FileNotFoundError):
            path.unlink()
