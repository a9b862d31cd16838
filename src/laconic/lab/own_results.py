"""Which files in a folder a run has written: seen by what is in them, since other programs use the same names."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.telemetry.logs.jsonl import BEGINS as JSONL_BEGINS
from laconic.telemetry.logs.jsonl import FILE as JSONL

LOGS = (JSONL,)
MIDWAY = "midway.pt"
"""What a cell of a comparison that is not finished has saved of itself."""
RUN_FILES = (
    "config.toml", "faults.toml", "metrics.csv", "rounds.csv", "times.csv", "summary.json", "checkpoint.pt", MIDWAY,
    *LOGS,
)  # fmt: skip
"""The files of a run's folder, beside its pictures."""
COMPARISON = "comparison.json"
"""The file that says what is in the folder of a comparison over seeds, networks or partitions."""
PICTURES = ("curves.png", "curves.svg", "curves.pdf")
_OF_COMPARISONS = (COMPARISON, "comparison.toml", "report.html", "report.json", "table.csv", *PICTURES)
SAVED_RUN_BEGINS = b"laconic run\n"
_BEGINS = {
    "metrics.csv": b"epoch,round,train_loss,", "rounds.csv": b"round,epoch,up_wire_bytes,",
    "times.csv": b"rank,round,what,", "checkpoint.pt": SAVED_RUN_BEGINS, MIDWAY: SAVED_RUN_BEGINS,
    JSONL: JSONL_BEGINS.encode(),
}  # fmt: skip
_OPTIONS = {"algorithm", "workers", "driver", "layout", "seed"}  # every run's config has them


def own_files(folder: Path) -> list[Path]:
    """Return the files in a folder that a run has written."""
    return [file for file in _of_the_names(folder) if _is_own(file)]


def foreign_files(folder: Path) -> list[Path]:
    """Return the files in a folder that a run would write, but others have written."""
    return [file for file in _of_the_names(folder) if not _is_own(file)]


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of runs in this one, as a comparison writes them."""
    return sorted(
        config.parent
        for config in folder.glob(f"*/{RUN_FILES[0]}")
        if _is_own(config) and any((config.parent / name).exists() for name in ("metrics.csv", "summary.json"))
    )


def is_comparison(folder: Path) -> bool:
    """Return whether a comparison over seeds, networks or partitions has written into this folder."""
    try:
        return isinstance(json.loads(_read(folder / COMPARISON))["cells"], list)
    except (KeyError, TypeError, ValueError, RecursionError):
        return False


def files_of_comparison(folder: Path) -> list[Path]:
    """Return the files that a comparison over seeds has written into a folder, those of its cells included."""
    if not is_comparison(folder):
        return []
    cells = sorted(config.parent for config in folder.glob(f"cells/*/*/*/*/{RUN_FILES[0]}"))
    own = [folder / name for name in _OF_COMPARISONS if os.path.lexists(folder / name)]
    return own + [file for cell in cells for file in own_files(cell)]


def _of_the_names(folder: Path) -> list[Path]:
    return [folder / name for name in (*RUN_FILES, *PICTURES) if os.path.lexists(folder / name)]


def _is_own(file: Path) -> bool:
    if file.name in PICTURES:  # which say nothing of who has drawn them; a comparison's lie above its runs
        beside = any(_is_own(file.parent / name) for name in ("config.toml", "metrics.csv", "summary.json"))
        return beside or bool(run_folders(file.parent)) or is_comparison(file.parent)
    if file.name in _BEGINS:
        begins = _BEGINS[file.name]
        return _read(file, len(begins)) == begins
    if file.name == "faults.toml":  # a run writes it beside its options, unless it has read it here
        read = _config_in(file.parent).get("faults")
        return isinstance(read, str) and Path(read).resolve() != file.resolve()
    if file.name == "summary.json":
        try:
            settings = json.loads(_read(file))["settings"]
        except (KeyError, TypeError, ValueError, RecursionError):
            return False
        return isinstance(settings, dict) and "algorithm" in settings
    return bool(_config_in(file.parent))


def _config_in(folder: Path) -> Mapping[str, Any]:
    """Return the options in a run's `config.toml`; nothing if there is none."""
    try:
        table = tomllib.loads(_read(folder / RUN_FILES[0]).decode())
    except (ValueError, RecursionError):
        return {}
    return table if table.keys() >= _OPTIONS else {}


def _read(file: Path, size: int = -1) -> bytes:
    """Return what a file begins with; nothing if it cannot be read."""
    try:
        with file.open("rb") as opened:
            return opened.read(size)
    except OSError:
        return b""
