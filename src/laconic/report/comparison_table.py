"""The table of a comparison: a row for each variant, network and partition, with mean and spread over the seeds."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from laconic.lab.comparison.plan import Cell
from laconic.lab.comparison.results import CellResult
from laconic.lab.runs.measure import Measure, measure_of
from laconic.lab.runs.record import Record, Row
from laconic.report.estimate import Estimate
from laconic.report.fitting import FittingTable
from laconic.report.table import base_of
from laconic.units import bytes_text

_NONE = "-"
Kind = tuple[str, str | None, str]


def comparison_table(results: Mapping[Cell, CellResult], records: Mapping[Cell, Record]) -> FittingTable:
    """Return the table. A spread is the standard deviation over the seeds.

    Cells that diverged, failed or were not run are counted in a column of their own, and are in no mean.

    Args:
        results: What has become of each cell.
        records: The finished runs.
    """
    rows: dict[Kind, list[Cell]] = {}
    for cell in results:
        rows.setdefault((cell.label, cell.network, cell.partition), []).append(cell)
    table = FittingTable(remedy="a wider terminal or --json - shows them")
    table.add_column("variant")
    several = {place: len({row[place] for row in rows}) > 1 for place in (1, 2)}
    for place, name in ((1, "network"), (2, "partition")):
        if several[place]:
            table.add_column(name)
    measure = measure_of(next(iter(results)).settings)
    for name, importance in ((measure.short, float("inf")), ("loss", 3.0), ("up", 7.0), ("total", 8.0),
                             ("total ratio", 9.0), ("rounds", 5.0)):  # fmt: skip
        table.add_column(name, justify="right", importance=importance)
    takes_time = any(record.last.seconds is not None for record in records.values())
    if takes_time:
        table.add_column("simulated s", justify="right", importance=6)
    table.add_column("seeds", justify="right")
    for row, cells in rows.items():
        good = [records[cell] for cell in cells if results[cell].state == "finished" and cell in records]
        names = [name for place, name in ((1, row[1] or _NONE), (2, row[2])) if several[place]]
        figures = _figures(good, takes_time=takes_time) if good else [_NONE] * (6 + takes_time)
        style = None if len(good) == len(cells) else "red"
        table.add_row(row[0], *names, *figures, _seeds([results[cell] for cell in cells]), style=style)
    return table


def _figures(records: Sequence[Record], *, takes_time: bool) -> list[str]:
    last = [record.last for record in records]
    totals = [row.up_wire_bytes + row.down_wire_bytes for row in last]
    bases = [base_of([record], record) for record in records]
    ratios = [
        base.over(record.traffic)["total"] for record, base in zip(records, bases, strict=True) if base is not None
    ]
    seconds = [row.seconds for row in last if row.seconds is not None]
    return [
        _measured(measure_of(records[0].settings), last),
        _mean_text([row.train_loss for row in last], ".3f"),
        bytes_text(fmean(row.up_wire_bytes for row in last)),
        bytes_text(fmean(totals)),
        _ratio(ratios),
        f"{fmean(record.traffic.rounds for record in records):g}",
        *([f"{fmean(seconds):.3g}" if seconds else _NONE] if takes_time else []),
    ]


def _measured(measure: Measure, rows: Sequence[Row]) -> str:
    values = [measure.value(row) for row in rows]
    return f"{_mean_text(values, '.2f')} %" if measure.is_share else _mean_text(values, ".3g", ".2g")


def _mean_text(values: Sequence[float], form: str, form_of_deviation: str = "") -> str:
    """Return the mean of values, with their standard deviation if there are several: "96.10 ± 0.21"."""
    estimate = Estimate.of(values)
    assert estimate is not None
    mean, deviation = estimate.mean, estimate.deviation
    return f"{mean:{form}}" + ("" if deviation is None else f" ± {deviation:{form_of_deviation or form}}")


def _ratio(ratios: Sequence[float | None]) -> str:
    known = [ratio for ratio in ratios if ratio is not None]
    return f"{fmean(known):.3g}" if known else _NONE


def _seeds(results: Sequence[CellResult]) -> str:
    """Return how many seeds are in the means, and what has become of the others."""
    states = [result.state for result in results]
    others = [f"{states.count(state)} {state}" for state in ("diverged", "failed", "not run") if state in states]
    return ", ".join([str(states.count("finished")), *others])


def notes_on_comparison(results: Mapping[Cell, CellResult], memory_bytes: int) -> list[str]:
    """Return the lines under the table: what diverged or failed and why, and what the columns are."""
    notes = [
        f"{cell.name} {result.state}: {result.why}"
        for cell, result in results.items()
        if result.state in ("diverged", "failed")
    ]
    if any(result.state == "finished" for result in results.values()):
        several = any(cell.seed != next(iter(results)).seed for cell in results)
        deviation = ", with the standard deviation behind ±" if several else ""
        notes.append(f"Figures are means over the seeds{deviation}; up and total are wire bytes of all workers.")
    if memory_bytes:
        notes.append(f"Peak memory of all processes together: {bytes_text(memory_bytes)}.")
    return notes
