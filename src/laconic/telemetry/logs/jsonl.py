"""A log as JSON lines: `log.jsonl`, a file that any program reads line by line while a run goes on.

The first line has `"event": "init"`, the name and the settings; every other one `"event": "log"`, the step and the
numbers; the last one of a run that came to its end `"event": "finish"`. Numbers that are not finite are null.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "log.jsonl"
BEGINS = '{"event": "init", "by": "laconic"'


class JsonLines:
    """One file of JSON lines. Each line is in the file when `log` returns."""

    def __init__(self, folder: Path, *, name: str, config: Mapping[str, Any], start: int) -> None:
        """Begin the file, or go on after the lines of steps up to `start`. Raises OSError if it cannot be written."""
        self._path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        lines = _lines_until(self._path, start) if start else []
        if not lines:
            begun = {"event": "init", "by": "laconic", "name": name, "time": time.time(), "config": dict(config)}
            lines = [json.dumps(_finite(begun), default=str) + "\n"]
        part = self._path.with_name(f".{FILE}.{os.getpid()}.part")
        part.write_text("".join(lines), encoding="utf-8")
        part.replace(self._path)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Append a line."""
        self._append({"event": "log", "step": step, "time": time.time(), **values})

    def finish(self) -> None:
        """Append the last line."""
        self._append({"event": "finish", "time": time.time()})

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(_finite(line), allow_nan=False) + "\n")


def _lines_until(path: Path, step: int) -> list[str]:
    """Return the complete lines of a log up to a step; none if there is no such log."""
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            data = json.loads(line)
        except ValueError:
            continue  # of a process that was killed while it wrote
        if isinstance(data, dict) and line.endswith("\n") and _is_until(data, step):
            lines.append(line)
    return lines if lines and lines[0].startswith(BEGINS) else []


def _is_until(data: Mapping[str, Any], step: int) -> bool:
    at = data.get("step")
    return data.get("event") == "init" or (type(at) is int and at <= step)


def _finite(data: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    return {key: _finite(value) for key, value in data.items()} if isinstance(data, Mapping) else data
