"""A picture of step time over bandwidth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from laconic.planning.plan import Plan
from laconic.report.drawing import line_style, picture_bytes, plain_axes, wrapped
from laconic.report.plan import bandwidth_text, plan_title
from laconic.report.visible import for_matplotlib
from laconic.units import seconds_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TICKS_S = (*(10.0**power for power in range(-6, 2)), 60, 600, 3600, 36_000, 360_000, 3_600_000)


def draw_plan(plan: Plan, bandwidths: Sequence[float], ending: str) -> bytes:
    """Return a picture of the step time of each method, on its best layout at each bandwidth.

    Args:
        plan: The plan.
        bandwidths: Bandwidths in bytes per second, ascending.
        ending: ".png", ".svg" or ".pdf".
    """
    title = f"{plan_title(plan)}; each method on its best layout"

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        _draw_lines(axes, plan, bandwidths)
        _mark_bandwidth(axes, plan.query.bytes_per_s, bandwidths)
        of = "the line between sites" if plan.query.sites else "each link"
        _label(axes, bandwidths, of)
        axes.set_title(wrapped(title, 90), fontsize=10)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, handlelength=3.5)

    return picture_bytes((10, 6), ending, title, draw)


def _draw_lines(axes: "Axes", plan: Plan, bandwidths: Sequence[float]) -> None:
    bits = [8 * bandwidth for bandwidth in bandwidths]
    baseline = [plan.baseline.at(bandwidth) for bandwidth in bandwidths]
    axes.plot(bits, baseline, color="black", linewidth=3.5, alpha=0.7, label="plain all-reduce", zorder=1)
    for number, method in enumerate(dict.fromkeys(choice.method for choice in plan.choices)):
        choices = [choice for choice in plan.choices if choice.method == method]
        best = [min(choice.at(bandwidth) for choice in choices) for bandwidth in bandwidths]
        axes.plot(bits, best, label=for_matplotlib(method), **line_style(number, len(bits)))


def _mark_bandwidth(axes: "Axes", here_bytes_per_s: float, bandwidths: Sequence[float]) -> None:
    """Draw a vertical line at the bandwidth that was asked about."""
    if not bandwidths[0] <= here_bytes_per_s <= bandwidths[-1]:
        return
    here = 8 * here_bytes_per_s
    axes.axvline(here, color="#888888", linewidth=1, linestyle=(0, (1, 2)))
    label = f" {bandwidth_text(here_bytes_per_s)}"
    axes.annotate(label, (here, 1), xycoords=("data", "axes fraction"), va="top", color="#555555", fontsize=9)


def _label(axes: "Axes", bandwidths: Sequence[float], of: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, place: bandwidth_text(value / 8))
    axes.yaxis.set_major_locator(FixedLocator(_TICKS_S))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, place: _short(value))
    axes.tick_params(labelsize=9)
    axes.set_xlabel(f"bandwidth of {of}")
    axes.set_ylabel("predicted time of one step")
    plain_axes(axes)
    axes.set_xlim(8 * bandwidths[0], 8 * bandwidths[-1])


def _short(seconds: float) -> str:
    """Return a tick's time without trailing zeros, such as "10 s"."""
    number, unit = seconds_text(seconds).split()
    return f"{float(number):g} {unit}"
