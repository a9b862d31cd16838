"""Live progress on the terminal: epoch, loss, accuracy, bytes so far, rounds, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from laconic.report.terminal import terminal
from laconic.units import bytes_text

if TYPE_CHECKING:
    from laconic.lab.runs.run_so_far import RunProgress


_FULL, _MEDIUM, _SHORT = 120, 78, 48  # columns of a terminal that a line with all figures, a few, or a bar takes


def _text_column(text_format: str, style: str = "none") -> TextColumn:
    return TextColumn(text_format, style=style, markup=False, table_column=Column(no_wrap=True))


class _TimeLeft(ProgressColumn):
    """The estimated time left, said as such; behind a finished task the time that it took."""

    def render(self, task: Task) -> Text:
        """Return the text of one task."""
        if task.finished:
            return Text(f"in {span_text(task.finished_time or 0.0)}")
        left = task.time_remaining
        return Text("" if left is None else f"{span_text(left)} left", style="cyan")


def span_text(seconds: float) -> str:
    """Return a span of time in one or two units: "45 s", "2 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")


def _loss_text(loss: float) -> str:
    """Return a loss as text; that of a run that diverges may have thirty digits."""
    return f"{loss:.3f}" if abs(loss) < 1e4 else f"{loss:.3g}"


def columns_of(console: Console, few: str, more: str, *, estimates: bool = True) -> list[ProgressColumn]:
    """Return the columns of a line that fit the terminal: steps and time left always, the texts where there is room.

    Args:
        console: The terminal.
        few: A text for a terminal of medium width.
        more: What is added to it on a wide one.
        estimates: Whether the time left is estimated for each line by itself.
    """
    shown: list[ProgressColumn] = [_text_column("{task.description}", "bold")]
    if console.width >= _SHORT:
        shown.append(BarColumn(bar_width=20 if console.width >= _FULL else 10))
    shown.append(MofNCompleteColumn(table_column=Column(no_wrap=True)))
    if console.width >= _MEDIUM:
        shown.append(_text_column(few + more if console.width >= _FULL else few))
    return [*shown, _TimeLeft(table_column=Column(no_wrap=True))] if estimates else shown


class Shown:
    """Progress bars that are shown within a `with` block."""

    _bars: Progress

    def __enter__(self) -> Self:
        if not self._bars.disable:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._bars.disable:  # rich below 15 ends even hidden bars with an empty line
            self._bars.stop()


class RunDisplay(Shown):
    """A progress bar for each run. It is hidden if not `shown`, and prints plain lines without a terminal."""

    def __init__(self, *, shown: bool = True) -> None:
        console = terminal(stderr=True)
        self._shown, self._lines = shown, shown and (not console.is_terminal or console.is_dumb_terminal)
        self._console = console
        self._bars = Progress(
            *columns_of(
                console, "epoch {task.fields[epoch]}  accuracy {task.fields[accuracy]}",
                "  loss {task.fields[loss]}  up {task.fields[up]}",
            ),
            console=console,
            disable=not shown or self._lines,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}

    def listen(self, step: RunProgress) -> None:
        """Show the progress of a run."""
        from laconic.lab.runs.measure import measure_of

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
                self._console.print(f"{name} goes on after epoch {done}, round {last.round}", soft_wrap=True)
        shown = {"completed": step.step, "loss": _loss_text(step.loss)}
        if step.row is not None:
            row = step.row
            shown |= {
                "epoch": f"{row.epoch}/{step.settings.epochs}",
                "accuracy": measure_of(step.settings).text(row),
                "up": bytes_text(row.up_wire_bytes),
            }
            if self._lines and row.epoch in self._reported(step.settings.epochs):
                aborted = f" ({row.aborted_rounds} aborted)" if row.aborted_rounds else ""
                self._console.print(
                    f"{name}: epoch {shown['epoch']}, round {row.round}{aborted}, loss {_loss_text(row.train_loss)}, "
                    f"{measure_of(step.settings).short} {shown['accuracy']}, up {shown['up']}",
                    soft_wrap=True,
                )
        self._bars.update(self._tasks[name], **shown)  # type: ignore[arg-type]

    @staticmethod
    def _reported(epochs: int) -> set[int]:
        """Return the epochs that get a line without a terminal: the first, each tenth of the run, and the last."""
        return {1, *range(max(1, epochs // 10), epochs + 1, max(1, epochs // 10)), epochs}
