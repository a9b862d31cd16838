"""Live progress of cells on the terminal: those that are done, those that run, and the time left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TaskID

from laconic.cli.progress_display import Shown, columns_of, span_text
from laconic.report.terminal import terminal

if TYPE_CHECKING:
    from laconic.lab.comparison.cell_runs import CellProgress


class CellDisplay(Shown):
    """A line for all cells, and one for each that runs. Without a terminal it prints one when a cell begins or ends."""

    def __init__(self, *, shown: bool = True, console: Console | None = None) -> None:
        self._console = console or terminal(stderr=True)
        self._lines = shown and (not self._console.is_terminal or self._console.is_dumb_terminal)
        self._bars = Progress(
            *columns_of(self._console, "{task.fields[note]}", "", estimates=False), console=self._console,
            disable=not shown or self._lines,
        )  # fmt: skip
        self._all: TaskID | None = None
        self._running: dict[str, TaskID] = {}

    def listen(self, progress: CellProgress) -> None:
        """Show what has happened to a cell."""
        if self._all is None:
            self._all = self._bars.add_task("cells", total=progress.n_cells, note="")
        description = ", ".join(filter(None, ("cells", _left(progress))))
        self._bars.update(self._all, completed=progress.n_ended, description=description)
        name = progress.name
        if progress.result is not None:
            if name in self._running:
                self._bars.remove_task(self._running.pop(name))
            if self._lines:
                self._console.print(_ended_line(progress), soft_wrap=True)
            return
        if name not in self._running:
            self._running[name] = self._bars.add_task(name, total=progress.total, note="")
            if self._lines:
                self._console.print(f"{name}: begins", soft_wrap=True)
        self._bars.update(self._running[name], completed=progress.done, total=progress.total, note=progress.note)


def _left(progress: CellProgress) -> str:
    return "" if progress.seconds_left is None else f"{span_text(progress.seconds_left)} left"


def _ended_line(progress: CellProgress) -> str:
    result = progress.result
    assert result is not None
    parts = [result.state, result.why or progress.note, "" if result.seconds is None else span_text(result.seconds)]
    of_all = [f"{progress.n_ended} of {progress.n_cells} cells", _left(progress) if progress.seconds_left else ""]
    return f"{progress.name}: {', '.join(filter(None, parts))} ({', '.join(filter(None, of_all))})"
