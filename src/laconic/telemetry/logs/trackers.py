"""Logs for experiment trackers, packages with `init`, `log` and `finish`: wandb, and trackio, which has wandb's names.

Both know more from the environment: `WANDB_MODE=offline`, `WANDB_PROJECT`, `TRACKIO_DIR` and so on.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

PROJECT = "laconic"


class Tracker:
    """One run of a tracker."""

    def __init__(
        self, package: str, folder: Path | None, *, name: str, group: str | None, config: Mapping[str, Any]
    ) -> None:
        """Begin a run in the project that the environment names, or else in "laconic"."""
        self._package: Any = import_module(package)
        project = os.environ.get(f"{package.upper()}_PROJECT") or PROJECT
        own: dict[str, Any] = {}
        if package == "wandb":  # trackio has a folder of its own, and groups only lately
            own = {"group": group, "dir": None if folder is None else str(folder)}
        self._package.init(project=project, name=name, config=dict(config), **own)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send a point of each name."""
        self._package.log(dict(values), step=step)

    def finish(self) -> None:
        """End the run, once everything is sent."""
        self._package.finish()
