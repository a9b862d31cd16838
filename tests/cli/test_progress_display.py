"""Progress: what a line of it holds at each width of a terminal, and how the time left is said."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from laconic.cli.progress_display import columns_of, span_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (60, "1 min"), (125, "2 min"), (3599, "1 h"), (12000, "3 h 20 min")],
)
def test_a_span_of_time_has_one_or_two_units(seconds, text):
    assert span_text(seconds) == text


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (200, "━━━━━━━━━━ 5/10 epoch 1/2 loss 0.5 25 s left"),
        (80, "━━━━━ 5/10 epoch 1/2 25 s left"),
        (60, "━━━━━ 5/10 25 s left"),
        (40, "5/10 25 s left"),
    ],
)
def test_a_narrow_terminal_gets_steps_and_time_left_before_all_else(width, words):
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    columns = columns_of(console, "epoch {task.fields[epoch]}", " loss {task.fields[loss]}")
    seconds = [0.0]
    bars = Progress(*columns, console=console, get_time=lambda: seconds[0])
    task = bars.add_task("compskip", total=10, epoch="1/2", loss="0.5")
    for seconds[0], steps in ((10.0, 2), (25.0, 5)):
        bars.update(task, completed=steps)
    text = Console(file=io.StringIO(), width=width)
    text.print(bars.get_renderable())
    assert isinstance(text.file, io.StringIO)
    lines = text.file.getvalue().splitlines()
    assert [" ".join(line.split()) for line in lines] == [f"compskip {words}"]
