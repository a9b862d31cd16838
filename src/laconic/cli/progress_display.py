"""Live progress on the terminal: epoch, loss, accuracy, bytes so far, rounds, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from laconic.report.terminal import terminal
from laconic.units import bytes_text

if TYPE_CHECKING:
    from laconic.lab.processes.pool import TaskProgress
    from laconic.lab.runs.run_so_far import RunProgress


def _text_column(text_format: str, style: str = "none") -> TextColumn:
    return TextColumn(text_format, style=style, markup=False)


class _Shown:
    """Progress bars that are shown within a `with` block."""

    _bars: Progress

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


class RunDisplay(_Shown):
    """A progress bar for each run. It is hidden if not `shown`, and prints plain lines without a terminal."""

    def __init__(self, *, shown: bool = True) -> None:
        console = terminal(stderr=True)
        self._shown, self._lines = shown, shown and not console.is_terminal
        self._console = console
        self._bars = Progress(
            _text_column("{task.description}", "bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _text_column(
                "steps  epoch {task.fields[epoch]}  loss {task.fields[loss]}  accuracy {task.fields[accuracy]}"
                "  up {task.fields[up]}"
            ),
            TimeRemainingColumn(),
            console=console,
            disable=not shown or self._lines,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def listen(self, step: RunProgress) -> None:
        """Show the progress of a run."""
        name = step.settings.algorithm
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(
                name, total=step.steps, epoch=f"0/{step.settings.epochs}", loss="-", accuracy="-", up="-"
            )
        if step.earlier:
            done, last = f"{len(step.earlier)} of {step.settings.epochs}", step.earlier[-1]
            self._bars.update(self._tasks[name], epoch=f"{last.epoch}/{step.settings.epochs}")
            self._bars.reset(self._tasks[name], completed=step.step)  # the time left is that of new steps
            if self._shown:
                self._console.print(f"{name} goes on after epoch {done}, round {last.round}")
        shown = {"completed": step.step, "loss": f"{step.loss:.3f}"}
        if step.row is not None:
            row = step.row
            shown |= {
                "epoch": f"{row.epoch}/{step.settings.epochs}",
                "accuracy": f"{row.test_accuracy:.2%}",
                "up": bytes_text(row.up_wire_bytes),
            }
            if self._lines and row.epoch in self._reported(step.settings.epochs):
                aborted = f" ({row.aborted_rounds} aborted)" if row.aborted_rounds else ""
                self._console.print(
                    f"{name}: epoch {shown['epoch']}, round {row.round}{aborted}, loss {row.train_loss:.3f}, "
                    f"accuracy {shown['accuracy']}, up {shown['up']}"
                )
        self._bars.update(self._tasks[name], **shown)  # type: ignore[arg-type]

    @staticmethod
    def _reported(epochs: int) -> set[int]:
        """Return the epochs that get a line without a terminal: the first, each tenth of the run, and the last."""
        return {1, *range(max(1, epochs // 10), epochs + 1, max(1, epochs // 10)), epochs}


class TasksDisplay(_Shown):
    """A progress bar for each task of a published table. Without a terminal it prints a line per tenth of a task."""

    def __init__(self) -> None:
        self._console = terminal(stderr=True)
        self._lines = not self._console.is_terminal
        self._bars = Progress(
            _text_column("{task.description}", "bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _text_column("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=self._lines,
        )
        self._tasks: dict[str, TaskID] = {}
        self._reported: dict[str, int] = {}  # tenths that are printed already, by task label

    def listen(self, step: TaskProgress) -> None:
        """Show the progress of a task."""
        if step.label not in self._tasks:
            self._tasks[step.label] = self._bars.add_task(step.label, total=step.total, note="")
        self._bars.update(self._tasks[step.label], completed=step.done, note=step.note)
        tenth = 10 * step.done // step.total
        if self._lines and tenth > self._reported.get(step.label, -1):
            self._reported[step.label] = tenth
            note = f", {step.note}" if step.note else ""
            self._console.print(f"{step.label}: {step.done} of {step.total}{note}")
