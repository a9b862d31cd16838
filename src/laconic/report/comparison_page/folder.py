"""A folder of runs, as `laconic compare` and `laconic run --out` write them, read for a page.

What stands in the files may come from anybody. Text stays text, a path leads nowhere but into the folder, and a run
whose files are damaged is named, with what is wrong, beside those that are well.
"""

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from laconic.errors import OptionError
from laconic.lab.comparison.results import VERSION
from laconic.lab.own_results import COMPARISON, own_files
from laconic.lab.runs.files import CONFIG, METRICS
from laconic.lab.runs.store import FILE as SUMMARY

FINISHED = "finished"
_MAX_CELLS = 10_000
_MAX_LABEL = 200  # letters; to draw longer ones takes long
_NOT_COMPARED = {"seed", "config", "out"}


@dataclass(frozen=True, kw_only=True)
class CellFolder:
    """One run of a comparison."""

    folder: Path
    label: str
    """What the method is called here; two variants of one method have two labels."""
    algorithm: str
    seed: int
    network: str | None = None
    partition: str = ""
    state: str = FINISHED
    """finished, diverged, failed or not run."""
    why: str | None = None
    seconds: float | None = None
    """Wall seconds that the run has taken."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What its `config.toml` has; empty if it has none."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """What its `summary.json` has; empty if it did not end."""

    @property
    def series(self) -> tuple[str, str, str]:
        """What is equal for the seeds of one line: label, network and partition."""
        return self.label, self.network or "", self.partition


@dataclass(frozen=True, kw_only=True)
class ComparisonFolder:
    """All runs in a folder, and what is known of them together."""

    folder: Path
    cells: tuple[CellFolder, ...]
    task: Mapping[str, Any] = field(default_factory=dict)
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    target: float | None = None
    """The target that the comparison names, if it does."""
    command: str = ""
    versions: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)


def read_comparison(folder: Path) -> ComparisonFolder:
    """Read the comparison in a folder, or the runs in it and below it if it has no `comparison.json`.

    Raises:
        OptionError: There is no run in the folder.
        ValueError: `comparison.json` is not as `laconic compare` writes it.
    """
    if not folder.is_dir():
        raise OptionError(f"{folder} is no folder; give one that `laconic compare` wrote")
    path = folder / COMPARISON
    if path.is_file():
        return _of_comparison(folder, path)
    cells = _without_doubles(folder, [_read_run(config.parent) for config in _configs(folder)])
    if not cells:
        raise OptionError(f"{folder} has no run; give a folder that `laconic compare` or `laconic run --out` wrote")
    summary = cells[0].summary
    return ComparisonFolder(
        folder=folder, cells=cells, versions=_table(summary.get("versions")), machine=_table(summary.get("machine"))
    )


def _configs(folder: Path) -> Iterator[Path]:
    for number, path in enumerate(sorted(folder.glob(f"**/{CONFIG}"))):
        if number >= _MAX_CELLS:
            raise OptionError(f"{folder} has more than {_MAX_CELLS:,} runs; give one of its folders")
        if any(file.name in (METRICS, SUMMARY) for file in own_files(path.parent)):
            yield path


def _of_comparison(folder: Path, path: Path) -> ComparisonFolder:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']!r:.20}, and this laconic reads {VERSION}")
        cells = tuple(_cell(folder, one) for one in data["cells"][:_MAX_CELLS])
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, OSError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: is not what `laconic compare` writes ({what:.200})") from None
    if not cells:
        raise OptionError(f"{folder}: {COMPARISON} names no run; run the comparison first")
    return ComparisonFolder(
        folder=folder, cells=cells, task=_table(data.get("task")), command=_text(data.get("command")),
        networks={str(name): _table(of) for name, of in _table(data.get("networks")).items()},
        versions=_table(data.get("versions")), machine=_table(data.get("machine")),
        target=_number(data.get("target")),
    )  # fmt: skip


def _cell(folder: Path, data: Mapping[str, Any]) -> CellFolder:
    """Return a cell that `comparison.json` names, with what its own folder has."""
    where = folder / str(data["folder"])
    if not where.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the cell {data['folder']!r:.80} leads out of the folder")
    settings, summary = _toml(where / CONFIG), _json(where / SUMMARY)
    seconds = data.get("seconds")
    return CellFolder(
        folder=where, label=str(data["label"])[:_MAX_LABEL], algorithm=str(data["algorithm"]), seed=int(data["seed"]),
        network=None if data.get("network") in (None, "-") else str(data["network"]),
        partition=str(data.get("partition") or ""), state=str(data.get("state", FINISHED)),
        why=None if data.get("why") is None else str(data["why"]),
        seconds=None if seconds is None else float(seconds),
        settings=settings, summary=summary,
    )  # fmt: skip


def _read_run(folder: Path) -> CellFolder:
    settings, summary = _toml(folder / CONFIG), _json(folder / SUMMARY)
    why = summary.get("diverged_because") if summary else f"{SUMMARY} is missing: the run did not end"
    state = "not run" if not summary else "diverged" if summary.get("diverged") else FINISHED
    algorithm = str(settings.get("algorithm", folder.name))
    seed, partition = settings.get("seed"), str(settings.get("partition", ""))
    return CellFolder(
        folder=folder, label=algorithm, algorithm=algorithm, seed=seed if isinstance(seed, int) else 0, state=state,
        partition=partition, why=None if why is None else str(why), settings=settings, summary=summary,
    )  # fmt: skip


def _without_doubles(folder: Path, cells: list[CellFolder]) -> tuple[CellFolder, ...]:
    """Give a label of its own to each setting of a method, where there are several."""
    variants: dict[str, dict[str, str]] = {}
    for cell in cells:
        known = variants.setdefault(cell.algorithm, {})
        known.setdefault(_setting_of(cell), cell.folder.relative_to(folder).as_posix())

    def label(cell: CellFolder) -> str:
        return cell.algorithm if len(variants[cell.algorithm]) == 1 else variants[cell.algorithm][_setting_of(cell)]

    return tuple(replace(cell, label=label(cell)) for cell in cells)


def _setting_of(cell: CellFolder) -> str:
    compared = {name: value for name, value in cell.settings.items() if name not in _NOT_COMPARED}
    return json.dumps(compared, sort_keys=True, default=str)


def _toml(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return _table(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _table(value: Any) -> Mapping[str, Any]:  # noqa: ANN401 - whatever JSON holds
    return {str(name): one for name, one in value.items()} if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:  # noqa: ANN401
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:
        return None


def _text(value: Any) -> str:  # noqa: ANN401
    return value if isinstance(value, str) else ""
