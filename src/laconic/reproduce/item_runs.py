"""The runs of items: which there are, and which are finished. Items share runs with the same settings and seed."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from laconic.errors import Named, OptionError
from laconic.hyperparameters import near_misses
from laconic.lab.comparison.cell_process import look_at_cell
from laconic.lab.comparison.cell_runs import CellWork
from laconic.lab.json_text import json_text
from laconic.lab.own_results import MIDWAY
from laconic.lab.processes.pool import Figures, Reporter
from laconic.lab.provenance import machine, versions
from laconic.lab.runs import store
from laconic.lab.runs.looks import LookPlan
from laconic.lab.runs.settings import RunSettings
from laconic.reproduce import code_hash
from laconic.reproduce.computed import COMPUTED
from laconic.reproduce.items import Item, Setting, fault_plan, setting_in_full, setting_of
from laconic.reproduce.judging import Found
from laconic.reproduce.later_options import without_later
from laconic.reproduce.measures import FinishedRun

_OF_THIS_MACHINE = ("data", "test_data", "faults", "threads", "kernel_threads", "side_by_side", "timeout_s")
_KEY_LENGTH = 12


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the user has chosen for all items."""

    data: Mapping[str, str] = field(default_factory=dict)
    """Folders by the name of the data set."""
    seeds: tuple[int, ...] = ()
    """Empty for those of the settings."""
    full: bool = False
    """Whether the printed settings are run."""
    factors: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """By setting and row, what its learning rate is multiplied by: that of a search."""


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """A run of a row with a seed."""

    row: str
    settings: RunSettings
    look_every: int

    @property
    def kind(self) -> str:
        """What runs have in common that take about the same time and memory."""
        run = self.settings
        parts = (self.row, run.task_name, run.dataset, run.examples, run.model, run.workers, run.batch_size, run.epochs)
        return " ".join(map(str, parts))

    @cached_property
    def content(self) -> dict[str, Any]:
        """What determines the figures: every setting, and the fault plan in place of its file."""
        settings = {key: value for key, value in self.settings.as_data().items() if key not in _OF_THIS_MACHINE}
        settings["set"] = without_later(self.settings.algorithm, settings["set"])
        plan = self.settings.fault_plan
        faults = {} if plan is None else {"faults": plan.to_toml()}
        named = {who: text.partition(":")[0] for who, text in self.settings.worker_data.items()}
        of_workers = {"worker_data": named} if named else {}
        content: dict[str, Any] = json.loads(
            json_text({**settings, **faults, **of_workers, "look_every": self.look_every})
        )
        return content

    @cached_property
    def key(self) -> str:
        """The name of its folder: equal for equal content."""
        text = json.dumps(self.content, sort_keys=True)
        return f"{self.settings.algorithm}-{hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]}"


def check_choices(item: Item, choices: Choices) -> None:
    """Refuse an item that cannot be run with these choices.

    Raises:
        OptionError: It needs a data set that is not given, or its printed setting cannot be run.
    """
    if not item.setting:
        return
    setting = setting_of(item.setting)
    if choices.full and setting.not_in_full:
        raise OptionError(
            Named("full", True), f": {item.name} is not here in its printed setting: {setting.not_in_full}"
        )
    missing = [name for name in _chosen_setting(item, choices).data if name not in choices.data]
    if missing:
        raise OptionError(
            Named("data"), f": {item.name} needs the data set {missing[0]}; give its folder with ",
            Named("data", f"{missing[0]}=FOLDER"),
        )  # fmt: skip


def planned_cells(item: Item, choices: Choices) -> list[PlannedCell]:
    """Return the runs of an item; none if nothing of it is trained on data. Data that are not given are left out."""
    if not item.setting:
        return []
    setting = _chosen_setting(item, choices)
    files = _files(setting, choices.data)
    return [
        PlannedCell(
            row=row, look_every=setting.look_every,
            settings=RunSettings(**{**_chosen_options(item, setting, row, choices), **files, "seed": seed}),
        )
        for row in (*item.rows, *item.own)
        for seed in choices.seeds or setting.seeds
    ]  # fmt: skip


def _chosen_setting(item: Item, choices: Choices) -> Setting:
    setting = setting_of(item.setting)
    return setting_in_full(setting) if choices.full else setting


def options_of(item: Item, setting: Setting, row: str) -> dict[str, Any]:
    """Return the options of `laconic run` of a row, without data and seed. Raises ValueError for an unknown row."""
    known = {**setting.rows, **item.own}
    if row not in known:
        raise ValueError(f"{item.name}: unknown row {row!r}{near_misses(row, list(known))}")
    own = dict(known[row])
    like = own.pop("like", None)
    above = {**setting.run, **item.run} if like is None else options_of(item, setting, like)
    options = {**above, **own, "set": {**above.get("set", {}), **own.get("set", {})}}
    if "faults" in own:
        options["faults"] = str(fault_plan(own["faults"]))
    return options


def base_row(item: Item, setting: Setting, row: str) -> str:
    """Return the row of the setting that a row of an item is like."""
    while row not in setting.rows:
        row = item.own[row]["like"]
    return row


def _chosen_options(item: Item, setting: Setting, row: str, choices: Choices) -> dict[str, Any]:
    """Return the options of a row, with the learning rate of a search. c keeps its ratio to it if it is not swept."""
    options = options_of(item, setting, row)
    factor = choices.factors.get((setting.name, base_row(item, setting, row)), 1.0)
    if factor == 1:
        return options
    swept = item.own.get(row, {}).get("set", {})
    scaled = {
        name: str(float(text) * factor)
        for name, text in options["set"].items()
        if name in ("c", "server_c") and name not in swept
    }
    learning_rate = options.get("lr") or RunSettings(**options).learning_rate
    return {**options, "lr": learning_rate * factor, "set": {**options["set"], **scaled}}


def _files(setting: Setting, data: Mapping[str, str]) -> dict[str, Any]:
    """Return the options that say where the data are."""
    if not setting.data or any(name not in data for name in setting.data):
        return {}
    if "worker_data" in setting.run:
        by_worker = setting.run["worker_data"]
        return {"worker_data": {who: f"{name}:{data[name]}" for who, name in by_worker.items()}}
    folder = data[setting.data[0]]
    if not setting.files:
        return {"data": folder}
    return {option: str(Path(folder) / name) for option, name in setting.files.items()}


@dataclass(frozen=True, kw_only=True)
class MadeWith:
    """What has made the results in a folder."""

    n_runs: int
    hours: float
    """The time of its runs and figures, added up."""
    dates: tuple[str, ...]
    versions: tuple[Mapping[str, Any], ...]
    machines: tuple[Mapping[str, Any], ...]


def _about() -> dict[str, Any]:
    return {"date": datetime.now(UTC).date().isoformat(), "versions": versions(), "machine": machine()}


class Folder:
    """The folder of finished runs and computed figures, each as soon as it is finished."""

    def __init__(self, path: Path) -> None:
        """Read and write nothing yet."""
        self.path = path

    def cell(self, planned: PlannedCell) -> FinishedRun | None:
        """Return a finished run; None if it is not there. Raises OptionError if its file is damaged."""
        data = store.finished(self.of_cell(planned), planned.content)
        if data is None:
            return None
        return FinishedRun(row=planned.row, seed=planned.settings.seed, looks=data["looks"], figures=data)

    def keep_cell(self, planned: PlannedCell, figures: Figures) -> None:
        """Keep a finished run. Raises OSError as `store.keep`."""
        store.keep(self.of_cell(planned), planned.content, {**figures, **_about()})

    def computed(self, name: str) -> dict[str, Any] | None:
        """Return computed figures with what is known of them; None if they are not there."""
        return store.finished(self.path / "computed" / name, {"compute": name})

    def keep_computed(self, name: str, figures: Figures) -> None:
        """Keep computed figures. Raises OSError as `store.keep`."""
        about = {**_about(), code_hash.KEY: code_hash.code_hash(name)}
        store.keep(self.path / "computed" / name, {"compute": name}, {**figures, **about})

    def clear(self) -> None:
        """Remove all that is finished."""
        for file in [*self._files(), *self.path.glob(f"cells/*/{MIDWAY}")]:
            file.unlink()

    def made_with(self) -> "MadeWith":
        """Return what has made the finished runs and figures, and how long that took."""
        found = [json.loads(file.read_text(encoding="utf-8")) for file in self._files()]
        return MadeWith(
            n_runs=len(list(self.path.glob(f"cells/*/{store.FILE}"))),
            hours=sum(one.get("seconds", 0.0) for one in found) / 3600,
            dates=tuple(sorted({one["date"] for one in found})),
            versions=tuple({json.dumps(one["versions"], sort_keys=True): one["versions"] for one in found}.values()),
            machines=tuple({json.dumps(one["machine"], sort_keys=True): one["machine"] for one in found}.values()),
        )

    def _files(self) -> list[Path]:
        return [*self.path.glob(f"cells/*/{store.FILE}"), *self.path.glob(f"computed/*/{store.FILE}")]

    def of_cell(self, planned: PlannedCell) -> Path:
        """Return the folder of a run."""
        return self.path / "cells" / planned.key


def found_in(folder: Folder, item: Item, cells: Sequence[PlannedCell]) -> Found:
    """Return what there is of an item. A row of which a seed is missing is not there."""
    by_row: dict[str, list[FinishedRun | None]] = {}
    for planned in cells:
        by_row.setdefault(planned.row, []).append(folder.cell(planned))
    complete = {
        row: [cell for cell in all_of_row if cell] for row, all_of_row in by_row.items() if None not in all_of_row
    }
    computed = folder.computed(item.compute) if item.compute else None
    return Found(computed=None if computed is None else computed["values"], cells=complete)


@dataclass(frozen=True, kw_only=True)
class NamedCell:
    """A run with the name that messages call it."""

    name: str
    planned: PlannedCell

    @property
    def kind(self) -> str:
        """What runs have in common that take about the same time and memory."""
        return self.planned.kind

    @property
    def settings(self) -> RunSettings:
        """The options of the run."""
        return self.planned.settings

    @property
    def size(self) -> tuple[object, ...]:
        """What runs have in common that read the same data and take about the same memory."""
        run = self.settings
        return run.task_name, run.dataset, run.examples, run.model, run.width, run.workers


def work_of_cell(cell: NamedCell, folder: Folder, estimated_bytes: int) -> CellWork:
    """Return the work that trains a run, which saves itself in the folder on the way."""
    looks = LookPlan(every=cell.planned.look_every)
    return CellWork(
        names=(cell.name,), kind=cell.kind, work=look_at_cell, estimated_bytes=estimated_bytes,
        arguments={"settings": cell.settings, "looks": looks, "folder": folder.of_cell(cell.planned)},
    )  # fmt: skip


def work_of_computed(name: str) -> CellWork:
    """Return the work that computes figures."""
    return CellWork(names=(name,), kind=name, work=compute, arguments={"name": name})


def compute(report: Reporter, name: str) -> Figures:
    """Compute the figures of this name in COMPUTED."""
    start = time.perf_counter()
    values = COMPUTED[name](report)
    return {"values": values, "seconds": time.perf_counter() - start}
