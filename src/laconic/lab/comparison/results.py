"""The files of a comparison's folder beside its runs: `comparison.toml` and `comparison.json`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import tomli_w

from laconic.drivers.gathered import misfit
from laconic.errors import Named, OptionError
from laconic.lab.atomic import write_text
from laconic.lab.comparison.plan import Cell, Comparison
from laconic.lab.json_text import json_text
from laconic.lab.own_results import COMPARISON
from laconic.lab.provenance import machine, versions

PLAN = "comparison.toml"
VERSION = 1
State = Literal["finished", "diverged", "failed", "not run"]
_NOTED = {
    "folder": str, "label": str, "algorithm": str, "seed": int, "network": str | None, "partition": str, "state": str,
    "why": str | None, "seconds": float | int | None, "peak_memory_bytes": int | None,
}  # fmt: skip
_OWN = ("algorithm", "set", "lr", "seed")  # a cell's own options, also where all cells happen to have the same


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """What has become of a cell."""

    state: State = "not run"
    why: str | None = None
    """Why it diverged or failed."""
    seconds: float | None = None
    """The time that it took on this machine."""
    memory_bytes: int | None = None
    """The most that its process had in memory."""

    def as_data(self) -> dict[str, Any]:
        """Return it as it stands in the file."""
        return {
            "state": self.state, "why": self.why, "seconds": self.seconds, "peak_memory_bytes": self.memory_bytes
        }  # fmt: skip

    def shared_by(self, n_cells: int) -> "CellResult":
        """Return the result of each of several cells that were trained at once."""
        return self if self.seconds is None else replace(self, seconds=round(self.seconds / n_cells, 3))

    @property
    def is_trained(self) -> bool:
        """Whether its folder has a finished run."""
        return self.state in ("finished", "diverged")


class ResultFile:
    """`comparison.json`, written anew after each cell."""

    def __init__(self, folder: Path, comparison: Comparison, cells: list[Cell], command: str) -> None:
        """Write nothing yet."""
        self._folder = folder
        self._plan = tomli_w.dumps(comparison.as_data())
        self._about = {
            "version": VERSION,
            "task": in_common(cells),
            "target": comparison.target,
            "networks": comparison.networks,
            "partitions": comparison.partitions,
        }
        self._made = {"command": command, "versions": versions(), "machine": machine()}

    def write(self, results: Mapping[Cell, CellResult], memory_bytes: int) -> None:
        """Write both files. Raises OSError if one cannot be written."""
        self._folder.mkdir(parents=True, exist_ok=True)
        cells = [
            {
                "folder": cell.folder, "label": cell.label, "algorithm": cell.settings.algorithm, "seed": cell.seed,
                "network": cell.network, "partition": cell.partition, **result.as_data(),
            }
            for cell, result in results.items()
        ]  # fmt: skip
        data = {**self._about, "cells": cells, "peak_memory_bytes": memory_bytes or None, **self._made}
        write_text(self._folder / PLAN, self._plan)
        write_text(self._folder / COMPARISON, json_text(data))


def in_common(cells: list[Cell]) -> dict[str, Any]:
    """Return the options that all cells have with the same value, but for those that are of a cell."""
    one, *others = (cell.settings.as_data() for cell in cells)
    return {
        name: value
        for name, value in one.items()
        if name not in _OWN and all(name in other and other[name] == value for other in others)
    }


def measured_before(folder: Path) -> dict[str, CellResult]:
    """Return, by the folder of the cell, what an earlier call has noted.

    Raises:
        OptionError: The file is damaged.
    """
    file = folder / COMPARISON
    if not file.is_file():
        return {}
    try:
        cells = noted_cells(file)
    except ValueError as error:
        raise OptionError(Named("resume", True), f": {error}; mend it, or remove it to go on without it") from None
    return {
        cell["folder"]: CellResult(
            state=cell["state"], why=cell["why"], seconds=cell["seconds"], memory_bytes=cell["peak_memory_bytes"]
        )
        for cell in cells
    }


def noted_cells(file: Path) -> list[dict[str, Any]]:
    """Return the cells that a `comparison.json` names, with what it says of each.

    Raises:
        ValueError: It is not what laconic writes. The message names the file and the place in it.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}, line {error.lineno}: it is no JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: it is no JSON: {error!s:.100}") from None
    cells = data.get("cells") if isinstance(data, dict) else None
    if not isinstance(cells, list):
        raise ValueError(f'{file}: it has no list "cells"')
    for number, cell in enumerate(cells):
        named = {name: cell[name] for name in _NOTED if name in cell} if isinstance(cell, dict) else cell
        problem = misfit(named, _NOTED, f"cells[{number}]")
        if not problem and cell["state"] not in get_args(State):
            problem = (
                f"cells[{number}].state is {cell['state']!r:.60}; expected was one of {', '.join(get_args(State))}"
            )
        if problem:
            raise ValueError(f"{file}: {problem}")
    return cells
