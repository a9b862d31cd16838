"""One cell of a comparison in its process: it trains, and writes the folder of the run itself."""

import warnings
from collections.abc import Sequence
from contextlib import suppress
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
from laconic.lab.runs.run import run_simulated
from laconic.lab.runs.run_so_far import RunProgress
from laconic.lab.runs.settings import RunSettings
from laconic.statements import warn
from laconic.units import bytes_text


def train_cell(
    report: Reporter,
    settings: RunSettings,
    folder: Path,
    plugins: Sequence[str],
    memory_bytes: int | None,
    logs: LogPlan | None,
) -> Figures:
    """Train a cell and write its folder, which then holds nothing of an earlier attempt.

    Args:
        report: Gets the progress.
        settings: The run.
        folder: Its folder.
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
            _remove_earlier(folder)
            _train(report, settings, RunFiles(folder, settings), logs)
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


def _train(report: Reporter, settings: RunSettings, files: RunFiles, logs: LogPlan | None) -> None:
    measure, measured = measure_of(settings), ""

    def listen(progress: RunProgress) -> None:
        nonlocal measured
        if progress.step == 1:
            files.begin()
        if progress.row is not None:
            files.add(progress.row, progress.rounds)
            measured = f"{measure.short} {measure.text(progress.row)}"
        if progress.warning:
            warn(progress.warning)
        report(progress.step, progress.steps, measured)

    files.finish(run_simulated(settings, listen, logs=logs))


def _remove_earlier(folder: Path) -> None:
    """Remove what a process that was killed has left."""
    for path in [*own_files(folder), *folder.glob(".*.part")]:
        with suppress(FileNotFoundError):
            path.unlink()
