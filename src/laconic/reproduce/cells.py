"""The finished tasks of a published table, kept beside its result file until all are finished."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from laconic.errors import Named, OptionError
from laconic.lab.json_text import json_text
from laconic.lab.own_results import MIDWAY
from laconic.lab.processes.pool import Figures, PoolTask
from laconic.lab.provenance import machine, versions
from laconic.lab.runs import store
from laconic.lab.runs.settings import RunSettings
from laconic.reproduce.table import PublishedTable

_FIGURES = "figures"


def cells_folder(result: Path) -> Path:
    """Return the folder of the finished tasks: `result.partial` for `result.json`."""
    return result.with_name(f"{result.stem}.partial")


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that has nothing in it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


class FinishedTasks:
    """The finished tasks of one table, each in a folder of its own named by its label."""

    def __init__(self, folder: Path, table: PublishedTable) -> None:
        """Read and write nothing yet."""
        self.folder = folder
        self._table = table

    def refuse(self) -> None:
        """Refuse to lose what an earlier command has finished.

        Raises:
            OptionError: There is something.
        """
        labels = [path.parent.name for path in sorted(self.folder.glob(f"*/{store.FILE}"))]
        if labels:
            raise OptionError(
                Named("out"), f": {self.folder} holds what an earlier command has finished ({', '.join(labels)}); ",
                Named("resume", True), " goes on from there, ", Named("overwrite", True), " begins anew",
            )  # fmt: skip

    def finished(self, tasks: Sequence[PoolTask]) -> dict[str, Figures]:
        """Return the figures of the tasks that are finished, by label.

        Raises:
            OptionError: One was made with other settings, which are named, or is damaged.
        """
        found = {task.label: store.finished(self.of(task), self._settings(task)) for task in tasks}
        try:
            return {label: dict(data[_FIGURES]) for label, data in found.items() if data is not None}
        except (KeyError, TypeError, ValueError) as error:
            raise store.damaged(self.folder, error) from None

    def keep(self, task: PoolTask, figures: Figures) -> None:
        """Keep the figures of a finished task. Raises OSError as `store.keep`."""
        about = {_FIGURES: figures, "versions": versions(), "machine": machine()}
        store.keep(self.of(task), self._settings(task), about)

    def of(self, task: PoolTask) -> Path:
        """Return the folder of a task."""
        return self.folder / task.label

    def has(self, task: PoolTask) -> bool:
        """Return whether the figures of a task are kept."""
        return (self.of(task) / store.FILE).is_file()

    def forget_unfinished(self) -> None:
        """Remove what unfinished tasks have saved of themselves."""
        for file in self.folder.glob(f"*/{MIDWAY}"):
            file.unlink()

    def remove(self, labels: Sequence[str]) -> None:
        """Remove what is kept of these tasks."""
        for folder in (self.folder / label for label in labels):
            with contextlib.suppress(OSError):
                (folder / store.FILE).unlink()
                folder.rmdir()

    def _settings(self, task: PoolTask) -> dict[str, Any]:
        arguments = {name: _plain(value) for name, value in task.arguments.items()}
        settings: dict[str, Any] = json.loads(json_text({"table": self._table.name, "task": task.label, **arguments}))
        return settings


def _plain(value: Any) -> Any:  # noqa: ANN401 - an argument of a task, as JSON can hold it
    if isinstance(value, RunSettings):
        return value.as_data()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else value
