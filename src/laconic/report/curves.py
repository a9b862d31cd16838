"""A picture of loss and accuracy over epochs, time and bytes."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from laconic.lab.runs.measure import measure_of
from laconic.lab.runs.record import Record, Row
from laconic.report.drawing import line_style, picture_bytes, plain_axes, wrapped
from laconic.report.visible import for_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TIMES = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"), (1e-3, "ms"), (1e-6, "us"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "bytes"))
_DIVERGED = 1000.0  # a loss this many times another's
_LOGARITHMIC = 20.0  # an axis whose lines end farther apart than this is logarithmic


def draw_curves(records: Sequence[Record], ending: str) -> bytes:
    """Return a picture: training loss and test accuracy over epochs, test accuracy over time and over bytes.

    Args:
        records: The runs, a line each.
        ending: ".png", ".svg" or ".pdf".
    """
    settings = records[0].settings
    title = f"{settings.title}, {settings.workers} workers, {settings.driver}"
    measure = measure_of(settings)

    def draw(figure: "Figure") -> None:
        (loss, accuracy), (time, traffic) = figure.subplots(2, 2)
        _draw_over_epochs(loss, records, "training loss", lambda row: row.train_loss)
        _draw_over_epochs(accuracy, records, measure.label, measure.value)
        for number, record in enumerate(records):
            _draw_own_models(accuracy, record, number)
        _draw_over_time(time, records)
        _draw_over_bytes(traffic, records)
        lines = loss.get_lines()[: len(records)]
        figure.legend(
            lines, [for_matplotlib(record.label) for record in records], loc="outside lower center",
            ncols=min(len(records), 4), frameon=False, handlelength=3.5,
        )  # fmt: skip
        figure.suptitle(wrapped(title, 100))

    legend_in = 0.25 * math.ceil(len(records) / 4)
    return picture_bytes((11, 7.5 + legend_in), ending, title, draw)


def _draw_over_epochs(axes: "Axes", records: Sequence[Record], label: str, value: Callable[[Row], float]) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, record in enumerate(records):
        epochs = [row.epoch for row in record.rows]
        axes.plot(epochs, [value(row) for row in record.rows], **line_style(number, len(epochs)))
    finite = [value(row) for record in records for row in record.rows if math.isfinite(value(row))]
    if finite and max(finite) > _DIVERGED * min(finite) > 0:
        axes.set_yscale("log")  # otherwise one run that diverged would flatten all others
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _finish(axes, "epochs", label)


def _draw_over_time(axes: "Axes", records: Sequence[Record]) -> None:
    clock = records[0].clock
    if not any(row.seconds for record in records for row in record.rows):
        _say(axes, f"no {clock} time:\n--bandwidth, --latency and --compute\nsay how long a round takes")
        _finish(axes, f"{clock} time", measure_of(records[0].settings).label)
        return
    _draw_accuracy_over(axes, records, lambda row: row.seconds or 0.0, f"{clock} time", _TIMES)


def _draw_over_bytes(axes: "Axes", records: Sequence[Record]) -> None:
    def sent(row: Row) -> int:
        return row.up_wire_bytes + row.down_wire_bytes

    _draw_accuracy_over(axes, records, sent, "wire bytes up and down, all workers", _BYTES)


def _draw_accuracy_over(
    axes: "Axes",
    records: Sequence[Record],
    spent: Callable[[Row], float],
    label: str,
    units: Sequence[tuple[float, str]],
) -> None:
    """Draw accuracy over what it has cost, in one unit for all runs."""
    measure = measure_of(records[0].settings)
    ends = [spent(record.last) for record in records]
    logarithmic = max(ends) > _LOGARITHMIC * min(ends)
    scale, unit = next((one for one in units if max(ends) >= one[0]), units[-1])
    for number, record in enumerate(records):
        # What has cost nothing yet has no place on a logarithmic axis.
        rows = [row for row in record.rows if spent(row) > 0 or not logarithmic]
        costs = [spent(row) / scale for row in rows]
        axes.plot(costs, [measure.value(row) for row in rows], **line_style(number, len(rows)))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, place: f"{value:g}")
    else:
        axes.set_xlim(left=0)
    _finish(axes, f"{label} ({unit})", measure.label)


def _draw_own_models(axes: "Axes", record: Record, number: int) -> None:
    """Draw a band from the worst to the best of the workers' own models, if they differ."""
    bands = [
        (row.epoch, 100 * row.own_accuracy_lowest, 100 * row.own_accuracy_highest)
        for row in record.rows
        if row.own_accuracy_lowest is not None and row.own_accuracy_highest is not None
    ]
    if not bands:
        return
    epochs, low, high = zip(*bands, strict=True)
    color = line_style(number)["color"]
    axes.fill_between(epochs, low, high, color=color, alpha=0.25, linewidth=0)
    if len(bands) == 1:  # a band needs two ends
        axes.vlines(epochs, low, high, color=color, alpha=0.5, linewidth=4)
    axes.set_title("bands: the workers' own models, worst to best", fontsize=8, loc="right", color="#555555")


def _say(axes: "Axes", text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#555555", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def _finish(axes: "Axes", x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    plain_axes(axes)
