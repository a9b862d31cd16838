"""A picture of loss and accuracy over rounds and bytes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from laconic.lab.runs.record import Record

# Colors for color-blind readers and print (Okabe and Ito).
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")


def draw_curves(records: Sequence[Record], path: Path) -> None:
    """Write a PNG: training loss over rounds, test accuracy over rounds and over uploaded bytes (logarithmic)."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    FigureCanvasAgg(figure)
    loss, accuracy, traffic = figure.subplots(1, 3)
    for number, record in enumerate(records):
        color = _COLORS[number % len(_COLORS)]
        style = _STYLES[number % len(_STYLES)]
        rounds = [row.round for row in record.rows]
        percent = [100 * row.test_accuracy for row in record.rows]
        marker = "o" if len(rounds) == 1 else None
        line = {"color": color, "linestyle": style, "marker": marker, "label": record.label}
        loss.plot(rounds, [row.train_loss for row in record.rows], **line)
        accuracy.plot(rounds, percent, **line)
        _draw_own_models(accuracy, record, color)
        traffic.plot([row.up_wire_bytes for row in record.rows], percent, **line)
    _label(loss, "round", "training loss")
    _label(accuracy, "round", "test accuracy (%)")
    _label(traffic, "bytes up, all workers (wire)", "test accuracy (%)")
    if any(row.up_wire_bytes for record in records for row in record.rows):
        traffic.set_xscale("log")
    accuracy.legend(frameon=False)
    settings = records[0].settings
    figure.suptitle(f"{settings.dataset}, {settings.model}, {settings.workers} workers, {settings.driver}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_own_models(axes: Axes, record: Record, color: str) -> None:
    """Draw a band from the worst to the best of the workers' own models, if they differ."""
    rows = [row for row in record.rows if row.own_accuracy_lowest is not None and row.own_accuracy_highest is not None]
    if not rows:
        return
    low, high = ([100 * float(getattr(row, f"own_accuracy_{end}")) for row in rows] for end in ("lowest", "highest"))
    label = f"{record.settings.algorithm}: workers' own models"
    rounds = [row.round for row in rows]
    axes.fill_between(rounds, low, high, color=color, alpha=0.25, linewidth=0, label=label)
    if len(rows) == 1:  # a band needs two ends
        axes.vlines(rounds, low, high, color=color, alpha=0.5, linewidth=4)


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
