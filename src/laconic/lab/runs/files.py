"""The files of one run's folder, written while the run goes on, so that a run that is killed keeps its epochs.

`config.toml` and, with faults, `faults.toml` are written before the first step, a line of `metrics.csv` and the lines
of its rounds in `rounds.csv` after every epoch, and at the end `times.csv`, if it is requested, and `summary.json`, the
last one.
"""

import csv
import io
import json
import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import tomli_w

from laconic.contract import ModelSpec
from laconic.lab.atomic import named_in_errors, write_text
from laconic.lab.partitions import Share
from laconic.lab.runs import store
from laconic.lab.runs.accounting import read_accounting
from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.lab.runs.divergence import Guess
from laconic.lab.runs.record import OF_TASKS, Record, Row
from laconic.lab.runs.rounds import FILE as ROUNDS
from laconic.lab.runs.rounds import RoundRow, lines_until, rounds_text
from laconic.lab.runs.settings import RunSettings
from laconic.lab.runs.times import FILE as TIMES
from laconic.lab.runs.times import PhaseTimes, read_phases
from laconic.telemetry.traffic import Traffic

CONFIG, FAULTS, METRICS = "config.toml", "faults.toml", "metrics.csv"
CHECKPOINT = "checkpoint.pt"
_TYPES = {column.name: column.type for column in fields(Row)}


class RunFiles:
    """The files of a run that goes on."""

    def __init__(self, folder: Path, settings: RunSettings) -> None:
        """Write nothing yet."""
        self.folder = folder
        self._settings = settings
        self._waiting: list[Row] = []  # rows that are not in the file yet
        self._rounds_waiting: list[RoundRow] = []
        self._begun = False
        self._columns = columns_of(settings)

    @property
    def metrics(self) -> Path:
        """The file with a row per epoch."""
        return self.folder / METRICS

    def begin(self, earlier: Sequence[Row] = ()) -> None:
        """Write the settings, and a `metrics.csv` without rows if there is none.

        Args:
            earlier: The rows of a run that goes on. They replace what is in `metrics.csv`, where some may be missing,
                and others be of epochs that are computed again.

        Raises:
            OSError: A file cannot be written. The error names it.
        """
        write_settings(self.folder, self._settings)
        if earlier or not self.metrics.exists():
            write_text(self.metrics, metrics_text(earlier, self._columns))
        write_text(self.folder / ROUNDS, lines_until(self.folder / ROUNDS, earlier[-1].round if earlier else 0))

    def add(self, row: Row, rounds: Sequence[RoundRow] = ()) -> None:
        """Add a row to `metrics.csv`, and its rounds to `rounds.csv`.

        Rows of a run before from the same epoch on are removed.

        Raises:
            OSError: It cannot be written. The row is written with the next one.
        """
        self._rounds_waiting += rounds
        self._waiting.append(row)
        self._write_rounds()
        if not self._begun:
            rows = [*self._before(self._waiting[0].epoch), *self._waiting]
            write_text(self.metrics, metrics_text(rows, self._columns))
            self._begun = True
        else:
            _append(self.metrics, _lines(self._waiting, self._columns))
        self._waiting.clear()

    def _write_rounds(self) -> None:
        """Add the rounds that wait to `rounds.csv`."""
        file = self.folder / ROUNDS
        _append(file, rounds_text(self._rounds_waiting, head=not file.exists()))
        self._rounds_waiting.clear()

    def _before(self, epoch: int) -> list[Row]:
        """Return the rows of earlier epochs; none if they are damaged."""
        try:
            return [row for row in _rows(self.metrics) if row.epoch < epoch]
        except (TypeError, ValueError):
            return []

    def finish(self, record: Record) -> None:
        """Write everything again that the run has found. Raises OSError as `begin`."""
        if self._rounds_waiting:
            self._write_rounds()
        write_record(self.folder, record)


def write_record(folder: Path, record: Record) -> None:
    """Write all files of a finished run into `folder`, which is made if missing.

    Raises:
        OSError: A file cannot be written. The error names it.
    """
    write_settings(folder, record.settings)
    if record.times is not None:
        record.times.write(folder)
    write_text(folder / METRICS, metrics_text(record.rows, columns_of(record.settings)))
    store.keep(folder, record.settings.as_data(), record.summary())


def write_settings(folder: Path, settings: RunSettings) -> None:
    """Write `config.toml`, and `faults.toml` of a run with faults. Raises OSError as `write_record`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CONFIG, tomli_w.dumps(settings.as_data()))
    if settings.fault_plan is not None:
        write_text(folder / FAULTS, settings.fault_plan.to_toml())


def read_record(folder: Path, settings: RunSettings) -> Record | None:
    """Return the finished run in `folder`; None if there is none.

    Raises:
        OptionError: What is in the folder was made with other settings, or is damaged.
    """
    _refuse_other_run(folder, settings)
    if (folder / CHECKPOINT).is_file() and _epochs_in(folder) < settings.epochs:
        return None  # it goes on for more epochs
    figures = store.finished(folder, settings.as_data())
    if figures is None:
        return None
    try:
        record = Record(
            settings=settings, spec=spec_of(figures["tensors"]), layout=str(figures["layout"]),
            traffic=Traffic.from_data(figures["traffic"]), rows=_rows(folder / METRICS),
            dense_rounds=int(figures["dense_rounds"]), warm_up_rounds=int(figures["warm_up_rounds"]),
            accounting=read_accounting(figures["parts"]),
            shares=[
                Share(examples=one["examples"], of_class=tuple(one["of_class"])) for one in figures.get("shares", ())
            ],
            guess=Guess(**figures["guess"]) if figures["guess"] else None, learning_rate=figures.get("learning_rate"),
            start_gap=figures.get("start_gap"),
            dense_sgd=DenseSGD(**figures["dense_sgd"]) if figures["dense_sgd"] else None,
            times=PhaseTimes(phases=tuple(read_phases(folder)), accuracy_s=float(figures["clocks_apart_s"]))
            if (folder / TIMES).is_file() else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise store.damaged(folder / store.FILE, error) from None
    if len(record.rows) != settings.epochs:
        raise store.damaged(folder / METRICS, ValueError(f"{len(record.rows)} rows of {settings.epochs}"))
    return record


def _epochs_in(folder: Path) -> float:
    """Return the epochs of the finished run in a folder; infinitely many if that is not known."""
    try:
        epochs = json.loads((folder / store.FILE).read_text(encoding="utf-8"))["settings"]["epochs"]
    except (OSError, KeyError, TypeError, ValueError):
        return math.inf
    return epochs if type(epochs) is int else math.inf


def _refuse_other_run(folder: Path, settings: RunSettings) -> None:
    """Refuse to continue an unfinished run with other settings, or with other faults in the same file."""
    config, faults = folder / CONFIG, folder / FAULTS
    if (folder / CHECKPOINT).is_file():
        return  # it knows more than its settings, and which of them may differ: see `laconic.lab.runs.saved`
    if config.is_file():
        try:
            made_with = tomllib.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise store.damaged(config, error) from None
        store.refuse_other_settings(config, made_with, settings.as_data())
    if settings.fault_plan is not None and faults.is_file():
        try:
            before = tomllib.loads(faults.read_text(encoding="utf-8"))
        except ValueError as error:
            raise store.damaged(faults, error) from None
        store.refuse_other_settings(faults, before, tomllib.loads(settings.fault_plan.to_toml()))


def spec_of(tensors: dict[str, Sequence[int]]) -> ModelSpec:
    """Return the parameters that the shapes by name are of."""
    shapes = tuple(tuple(int(length) for length in shape) for shape in tensors.values())
    return ModelSpec(names=tuple(tensors), shapes=shapes)


def columns_of(settings: RunSettings) -> tuple[str, ...]:
    """Return the names of the columns of a run's `metrics.csv`."""
    return tuple(name for name in _TYPES if name not in OF_TASKS or name in settings.task_columns)


def metrics_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Return the text of `metrics.csv`: the names of the columns, and a line per row."""
    return ",".join(columns) + "\r\n" + _lines(rows, columns)


def _lines(rows: Sequence[Row], columns: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, columns, extrasaction="ignore").writerows(asdict(row) for row in rows)
    return text.getvalue()


def _append(path: Path, text: str) -> None:
    """Append `text` to a file, or nothing of it."""
    with named_in_errors(path), path.open("ab", buffering=0) as stream:
        size = os.fstat(stream.fileno()).st_size
        data = text.encode()
        try:
            if (written := stream.write(data)) != len(data):
                stream.write(data[written:])  # the system says now why it took no more
        except OSError:
            stream.truncate(size)
            raise


def _rows(path: Path) -> list[Row]:
    """Return the rows of a `metrics.csv`; none if there is no such file.

    Raises:
        ValueError: A line is not as `metrics_text` writes it.
    """
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [
            Row(**{name: _value(name, line[name]) for name in _TYPES if name not in OF_TASKS or name in line})
            for line in csv.DictReader(stream)
        ]


def _value(name: str, text: str) -> Any:  # noqa: ANN401 - of the column's type
    kind = _TYPES[name]
    if text == "" and kind not in (int, float):
        return None
    return int(text) if kind is int else float(text)
