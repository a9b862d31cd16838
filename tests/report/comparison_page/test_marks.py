"""The course of a run: points at ends of epochs, exact bytes, and files that are not what they should be."""

import csv

import pytest

from laconic.lab.runs.rounds import rounds_text
from laconic.report.comparison_page.marks import MAX_MARKS, marks_of

N = 1000
COLUMNS = rounds_text([], head=True).strip().split(",")


def write(path, columns):
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def run_of(folder, n_epochs, **own):
    """A run of N rounds: round r sends r bytes up and 1 down, and skips every other packet of 4 workers."""
    n_rounds = range(N)
    rounds = dict.fromkeys(COLUMNS, [""] * N) | {
        "round": n_rounds, "epoch": [(r + 1) * n_epochs / N for r in n_rounds], "up_wire_bytes": n_rounds,
        "down_wire_bytes": [1] * N, "skips_up": [2] * N, "train_loss": [float(r % 2) for r in n_rounds],
    }  # fmt: skip
    write(folder / "rounds.csv", rounds | own)
    ends = [N * (epoch + 1) // n_epochs for epoch in range(n_epochs)]
    write(
        folder / "metrics.csv",
        {"epoch": range(1, n_epochs + 1), "round": ends, "test_accuracy": [end / N for end in ends]},
    )
    return marks_of(folder, n_workers=4)


@pytest.mark.parametrize("n_epochs", [1, 7, 500])
def test_every_point_has_the_exact_bytes_up_to_its_round_and_the_metric_of_its_epoch(tmp_path, n_epochs):
    marks = run_of(tmp_path, n_epochs)
    assert len(marks.round) <= MAX_MARKS + 1
    assert marks.round[-1] == N
    assert marks.up == [end * (end - 1) // 2 for end in marks.round]
    assert marks.down == marks.round
    assert set(marks.skips_up) == {0.5}
    measured = {
        end: value for end, value in zip(marks.round, marks.measured["test_accuracy"], strict=True) if value is not None
    }
    assert measured == {end: end / N for end in measured}
    assert len(measured) == min(n_epochs, MAX_MARKS)
    assert marks.epoch == pytest.approx([end * n_epochs / N for end in marks.round], abs=0.01)
    assert marks.residual_norm == []


def test_losses_between_two_points_are_their_mean_and_cells_that_are_empty_or_not_finite_are_no_number(tmp_path):
    losses = ["nan" if r < 500 else "" if r % 2 else 3.0 for r in range(N)]
    agreement = [1e308 if r < 500 else 0.25 if r == N - 1 else "" for r in range(N)]
    marks = run_of(
        tmp_path, 1, train_loss=losses, residual_norm=["inf"] * 900 + [1.0] * 100, vote_agreement=agreement
    )  # fmt: skip
    assert (marks.vote_agreement[0], marks.vote_agreement[-1]) == (None, 0.25)
    by_half = {end <= 500: loss for end, loss in zip(marks.round, marks.train_loss, strict=True)}
    assert by_half == {True: None, False: 3.0}
    assert marks.residual_norm[0] is None
    assert marks.residual_norm[-1] == 1.0


def test_a_run_without_rounds_is_shown_by_its_epochs(tmp_path):
    write(
        tmp_path / "metrics.csv",
        {
            "epoch": [1, 2], "round": [10, 20], "train_loss": [2.0, 1.0], "test_accuracy": [0.5, 0.75],
            "up_wire_bytes": [100, 250], "down_wire_bytes": [7, 9], "skips_up": [0, 20],
        },
    )  # fmt: skip
    marks = marks_of(tmp_path, n_workers=4)
    assert (marks.round, marks.epoch, marks.up, marks.down) == ([10, 20], [1.0, 2.0], [100, 250], [7, 9])
    assert (marks.measured["test_accuracy"], marks.train_loss, marks.skips_up) == ([0.5, 0.75], [2.0, 1.0], [0.0, 0.5])


def test_dense_rounds_end_at_a_point(tmp_path):
    run_of(tmp_path, 1)
    marks = marks_of(tmp_path, n_workers=4, dense_rounds=333)
    assert dict(zip(marks.round, marks.dense, strict=True))[333] == 1
    assert sum(marks.dense) == sum(end <= 333 for end in marks.round)


def test_a_run_that_was_killed_while_it_wrote_keeps_what_is_complete(tmp_path):
    run_of(tmp_path, 1)
    with (tmp_path / "rounds.csv").open("a") as stream:
        stream.write("1000,1.0")
    assert marks_of(tmp_path, n_workers=4).round[-1] == N


def test_a_damaged_file_is_refused_by_name_and_line(tmp_path):
    wrong = {
        "round,epoch\r\n1,2\r\n1\r\n1,2\r\n": r"rounds\.csv, line 3: has 1 cells, and the first line names 2",
        "round,epoch\r\n1,<script>\r\n": r"rounds\.csv: column epoch has a cell that is no number",
        "a,b\r\n1,2\r\n": r"rounds\.csv: has no column `round`",
        f"round,epoch\r\n1,{'1' * 200_000}\r\n": r"rounds\.csv: is no CSV file of a run \(field larger",
        "round,epoch,up_wire_bytes\r\n1,1,1e300\r\n": "column up_wire_bytes: no run sends so many bytes",
        "round,epoch,up_wire_bytes\r\n1,1,inf\r\n": "column up_wire_bytes: no run sends so many bytes",
        "round,epoch,down_wire_bytes\r\n1,1,-3\r\n": "column down_wire_bytes: no run sends so many bytes",
    }
    for text, message in wrong.items():
        (tmp_path / "rounds.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            marks_of(tmp_path, n_workers=1)
