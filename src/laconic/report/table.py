"""The table that compares several runs, and the lines that say what its figures are."""

from collections.abc import Sequence

from laconic.lab.runs.dense_sgd import DenseSGD
from laconic.lab.runs.measure import measure_of
from laconic.lab.runs.record import Record
from laconic.report.fitting import FittingTable
from laconic.report.visible import visible
from laconic.units import bytes_text

NOT_COUNTED = "-"
_RIGHT = {  # column: importance
    "up": 7, "up ratio": 4, "down": 6, "down ratio": 3, "total": 8, "total ratio": 9, "rounds": 5, "aborted": 10,
    "skips": 1,
}  # fmt: skip


def comparison(records: Sequence[Record]) -> FittingTable:
    """Return a table of test accuracy, bytes, their ratios to dense SGD's, rounds, skips and seconds of each run.

    `notes_on` explains the columns. What else a task is judged by takes the accuracy's place. A run that diverged is
    marked there and has no ratios: it is no cheaper way to the same model.
    """
    settings = records[0].settings
    table = FittingTable(
        f"{settings.title} of {records[0].spec.d:,} parameters, {settings.workers} workers, {settings.driver}",
        remedy="a wider terminal or --json - shows them",
    )
    for column, importance in {"algorithm": float("inf"), "layout": 2}.items():
        table.add_column(column, importance=importance)
    table.add_column(measure_of(settings).short, justify="right")
    columns = [
        column for column in _RIGHT if column != "aborted" or any(record.last.aborted_rounds for record in records)
    ]
    for column in columns:
        table.add_column(column, justify="right", importance=_RIGHT[column])
    takes_time = any(record.last.seconds is not None for record in records)
    table.add_column(seconds_label(records[0]), justify="right", importance=5 if takes_time else 0)
    for record in records:
        figures = _figures(record, base_of(records, record))
        table.add_row(
            visible(record.settings.algorithm), record.layout, _measured(record), *(figures[name] for name in columns),
            NOT_COUNTED if record.last.seconds is None else _short(record.last.seconds),
            style="red" if record.why_diverged else None,
        )  # fmt: skip
    return table


def seconds_label(record: Record) -> str:
    """Return the name of a column or an axis of seconds, which says what clock they are of."""
    return f"{record.clock} s"


def base_of(records: Sequence[Record], record: Record) -> DenseSGD | None:
    """Return what a run's bytes are compared with: what dense SGD would have sent, or else did send in this table."""
    if record.dense_sgd is not None:
        return record.dense_sgd
    for other in records:
        if other.settings.algorithm == "sgd":
            up, down = other.traffic.up.wire_bytes, other.traffic.down.wire_bytes
            return DenseSGD(layout=other.layout, rounds=other.traffic.rounds, up_wire_bytes=up, down_wire_bytes=down)
    return None


def _measured(record: Record) -> str:
    text = measure_of(record.settings).text(record.last)
    return f"{text} diverged" if record.why_diverged else text


def _figures(record: Record, base: DenseSGD | None) -> dict[str, str]:
    traffic = record.traffic
    up, down = traffic.up.wire_bytes, traffic.down.wire_bytes
    ratios = {} if base is None or record.why_diverged else base.over(traffic)
    shown = {f"{name} ratio": ratios.get(name) for name in ("up", "down", "total")}
    return {
        "up": bytes_text(up), "down": bytes_text(down), "total": bytes_text(up + down),
        **{name: NOT_COUNTED if ratio is None else _short(ratio) for name, ratio in shown.items()},
        "rounds": str(traffic.rounds), "aborted": str(traffic.aborted_rounds),
        "skips": f"{traffic.up.skips}/{traffic.down.skips // record.settings.workers}",
    }  # fmt: skip


def _short(number: float) -> str:
    """Return a number with one decimal, or with two digits where that would show 0."""
    return f"{number:.1f}" if number >= 0.1 or not number else f"{number:.2g}"
