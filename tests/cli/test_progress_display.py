"""Progress: what a line of it holds at each width of a terminal, and how the time left is said."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from laconic.cli.cell_display import CellDisplay
from laconic.cli.progress_display import columns_of, span_text
from laconic.lab.comparison.cell_runs import CellProgress
from laconic.lab.comparison.plan import Comparison
from laconic.lab.comparison.results import CellResult


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


def shown_by(display, width):
    text = Console(file=io.StringIO(), width=width)
    text.print(display._bars.get_renderable())
    assert isinstance(text.file, io.StringIO)
    return [" ".join(line.split()) for line in text.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [200, 60])
def test_a_comparison_shows_all_cells_with_the_time_left_and_a_line_for_each_that_runs(width):
    cells = Comparison(variants={"sgd": {"algorithm": "sgd"}}, seeds=(0, 1)).cells()
    console = Console(file=io.StringIO(), width=width, force_terminal=True)

    def progress(cell, done, n_ended, result=None):
        return CellProgress(
            name=cell.name, done=done, total=10, note="accuracy 90.00%", result=result, n_ended=n_ended, n_cells=2,
            seconds_left=125.0,
        )  # fmt: skip

    with CellDisplay(console=console) as display:
        display.listen(progress(cells[0], 5, 0))
        display.listen(progress(cells[1], 2, 0))
        lines = shown_by(display, width)
        display.listen(progress(cells[0], 10, 1, CellResult(state="finished", seconds=60.0)))
        later = shown_by(display, width)
    for found, wanted in (
        (lines, ["cells, 2 min left ", "sgd, resample, seed 0 ", "sgd, resample, seed 1 "]),
        (later, ["cells, 2 min left ", "sgd, resample, seed 1 "]),
    ):
        assert len(found) == len(wanted)
        assert all(line.startswith(words) for line, words in zip(found, wanted, strict=True)), found
    assert lines[1].endswith("5/10 accuracy 90.00%" if width == 200 else "5/10")
    assert " 1/2" in later[0]
