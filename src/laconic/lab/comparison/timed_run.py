"""A run that is not trained itself: another one on another network is, and this network's clock goes with it."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from laconic.drivers.gathered import misfit
from laconic.drivers.simulated.rounds import NETWORK
from laconic.lab.runs.files import RunFiles
from laconic.lab.runs.record import Record, Row
from laconic.lab.runs.rounds import RoundRow
from laconic.lab.runs.run_so_far import RunProgress
from laconic.lab.runs.saved import ROW
from laconic.lab.runs.settings import RunSettings
from laconic.telemetry.count_table import VIRTUAL
from laconic.training.simulation import Simulation

_STATE = {"network": NETWORK, "rows": [ROW], "seconds": [float | None]}


class TimedRun:
    """The files of such a run."""

    def __init__(self, settings: RunSettings, folder: Path) -> None:
        """Write nothing yet."""
        self.folder = folder
        """The folder of the run."""
        self._files = RunFiles(folder, settings)
        self._settings = settings
        self._seconds: list[float | None] = []  # after each round that is not in a file
        self._rows: list[Row] = []

    def watch(self, simulation: Simulation) -> None:
        """Time a simulation before its first round."""
        self._network = simulation.driver.time_on(self._settings.link(), self._settings.compute_s())
        simulation.driver.recorder.observe(lambda stats: self._seconds.append(self._now_s))

    @property
    def _now_s(self) -> float | None:
        return self._network.clock.now_ns / 1e9 or None

    def begin(self) -> None:
        """Begin the files, with the rows of a run that goes on."""
        self._files.begin(self._rows)

    def add(self, progress: RunProgress) -> None:
        """Write an epoch and its rounds, with the seconds on this network."""
        assert progress.row is not None
        self._rows.append(replace(progress.row, seconds=self._now_s))
        self._files.add(self._rows[-1], self._timed(progress.rounds))

    def _timed(self, rounds: Sequence[RoundRow]) -> list[RoundRow]:
        timed = [replace(each, seconds=seconds) for each, seconds in zip(rounds, self._seconds, strict=True)]
        self._seconds.clear()
        return timed

    def finish(self, record: Record) -> None:
        """Write the record of the run that was trained as the one of this network."""
        traffic = replace(record.traffic, seconds={VIRTUAL: self._now_s or 0.0})
        self._files.finish(replace(record, settings=self._settings, rows=self._rows, traffic=traffic))

    def saved(self) -> dict[str, Any]:
        """Return the clock, the rows and the rounds that are in no file, as plain data."""
        return {
            "network": self._network.saved(), "rows": [asdict(row) for row in self._rows], "seconds": [*self._seconds]
        }  # fmt: skip

    def restore(self, saved: object) -> None:
        """Go on from what `saved` returned. Raises ValueError for anything else."""
        if problem := misfit(saved, _STATE, "its clock"):
            raise ValueError(problem)
        assert isinstance(saved, dict)
        self._network.restore(saved["network"])
        self._rows = [Row(**row) for row in saved["rows"]]
        self._seconds = list(saved["seconds"])
