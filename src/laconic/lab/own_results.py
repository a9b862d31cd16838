"""Which files in a folder a run has written: seen by what is in them, since other programs use the same names."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOGS = ("log.jsonl",)
RUN_FILES = ("config.toml", "faults.toml", "metrics.csv", "times.csv", "summary.json", "checkpoint.pt", *LOGS)
"""The files of a run's folder, beside its pictures."""
PICTURES = ("curves.png", "curves.svg", "curves.pdf")
SAVED_RUN_BEGINS = b"laconic run\n"
_BEGINS = {
    "metrics.csv": b"epoch,round,train_loss,", "times.csv": b"rank,round,what,", "checkpoint.pt": SAVED_RUN_BEGINS,
    "log.jsonl": b'{"event": "init", "by": "laconic"',
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


def _of_the_names(folder: Path) -> list[Path]:
    return [folder / name for name in (*RUN_FILES, *PICTURES) if os.path.lexists(folder / name)]


def _is_own(file: Path) -> bool:
    if file.name in PICTURES:  # which say nothing of who has drawn them; a comparison's lie above its runs
        beside = any(_is_own(file.parent / name) for name in ("config.toml", "metrics.csv", "summary.json"))
        return beside or bool(run_folders(file.parent))
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
