"""A picture of step time over bandwidth."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from laconic.planning.plan import Plan
from laconic.report.plan import bandwidth_text
from laconic.units import seconds_text

# Colors for color-blind readers and print (Okabe and Ito); black is plain all-reduce.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = ("-", "--", "-.", ":")
_TICKS_S = (*(10.0**power for power in range(-6, 2)), 60, 600, 3600, 36_000, 360_000, 3_600_000)


def draw_plan(plan: Plan, bandwidths: Sequence[float], path: Path) -> None:
    """Write a PNG with the step time of each method, on its best layout at each bandwidth.

    Args:
        plan: The plan.
        bandwidths: Bandwidths in bytes per second, ascending.
        path: The file to write.
    """
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    bits = [8 * bandwidth for bandwidth in bandwidths]
    methods = list(dict.fromkeys(choice.method for choice in plan.choices))
    baseline = [plan.baseline.at(bandwidth) for bandwidth in bandwidths]
    axes.plot(bits, baseline, color="black", linewidth=3, alpha=0.8, label="plain all-reduce", zorder=1)
    for number, method in enumerate(methods):
        choices = [choice for choice in plan.choices if choice.method == method]
        best = [min(choice.at(bandwidth) for choice in choices) for bandwidth in bandwidths]
        style = _STYLES[number // len(_COLORS) % len(_STYLES)]
        axes.plot(bits, best, color=_COLORS[number % len(_COLORS)], linestyle=style, linewidth=1.6, label=method)
    here = 8 * plan.query.link.bytes_per_s
    if bits[0] <= here <= bits[-1]:
        axes.axvline(here, color="#888888", linewidth=1, linestyle=(0, (1, 2)))
        label = f" {bandwidth_text(plan.query.link.bytes_per_s)}"
        axes.annotate(label, (here, 1), xycoords=("data", "axes fraction"), va="top", color="#555555", fontsize=9)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: bandwidth_text(value / 8)))
    axes.yaxis.set_major_locator(FixedLocator(_TICKS_S))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: _short(value)))
    axes.tick_params(labelsize=9)
    axes.set_xlabel("bandwidth of each link")
    axes.set_ylabel("time of one step")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(bits[0], bits[-1])
    query = plan.query
    axes.set_title(
        f"{query.n_parameters:,} parameters, {query.n_workers} workers, latency "
        f"{seconds_text(query.link.latency_s)}, gradient {seconds_text(query.compute_s)}; "
        "each method on its best layout",
        fontsize=10,
    )
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def _short(seconds: float) -> str:
    """Return a tick's time without trailing zeros, such as "10 s"."""
    number, unit = seconds_text(seconds).split()
    return f"{float(number):g} {unit}"
