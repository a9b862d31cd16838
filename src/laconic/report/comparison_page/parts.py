"""What the full runs sent, by parts: set-up, round 0, warm-up, the rounds after it, tests and checks."""

import html
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from laconic.report.comparison_page.series import Run, Series
from laconic.units import bytes_text

_NONE = "\u2013"
_COLUMNS: dict[str, tuple[tuple[str, ...], ...]] = {  # what it adds up of `parts` in `summary.json`
    "set-up": (("set_up", "wire_bytes"), ("set_up", "control_bytes")),
    "round 0": (("round_0", "up_wire_bytes"), ("round_0", "down_wire_bytes")),
    "warm-up": (("warm_up", "up_wire_bytes"), ("warm_up", "down_wire_bytes")),
    "after the warm-up": (("after_warm_up", "up_wire_bytes"), ("after_warm_up", "down_wire_bytes")),
    "tests and checks": (("evaluation", "control_bytes"), ("checks", "control_bytes")),
}
_RATIOS = {
    "dense SGD over it": ("dense_sgd_wire_bytes_over_own", "total"),
    "after the warm-up alone": ("parts", "after_warm_up", "dense_sgd_wire_bytes_over_own", "total"),
    "at most, by the warm-up": ("parts", "warm_up", "bound_on_ratio", "total"),
}


def parts_table(series: Sequence[Series], names: Sequence[str]) -> str:
    """Return the table as HTML; an empty text if no run has noted its parts. `names` are visible already."""
    rows = [(name, one.shown) for name, one in zip(names, series, strict=True) if any(map(_has_parts, one.shown))]
    if not rows:
        return ""
    titles = "".join(f'<th scope="col" class="number">{title}</th>' for title in (*_COLUMNS, *_RATIOS))
    lines = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td class=number>{_bytes(runs, figures)}</td>" for figures in _COLUMNS.values())
        + "".join(f"<td class=number>{_ratio(runs, path)}</td>" for path in _RATIOS.values())
        + "</tr>"
        for name, runs in rows
    )
    return (
        "<details><summary>What the full runs sent, by parts</summary>"
        '<div class="scrolls" tabindex="0" role="region" aria-label="What the full runs sent, by parts"><table>'
        "<caption>Bytes of all workers, up and down, means over seeds. Round 0 is part of the rounds. A warm-up bounds "
        "the ratio to dense SGD, whatever is saved afterwards.</caption>"
        f'<thead><tr><th scope="col">method</th>{titles}</tr></thead><tbody>{lines}</tbody></table></div></details>'
    )


def _has_parts(run: Run) -> bool:
    return isinstance(run.cell.summary.get("parts"), dict)


def _bytes(runs: Sequence[Run], figures: Sequence[tuple[str, ...]]) -> str:
    totals = [[_number(run.cell.summary, ("parts", *path)) for path in figures] for run in runs]
    sums = [sum(number for number in of if number is not None) for of in totals if None not in of]
    return bytes_text(statistics.fmean(sums)) if sums and min(sums) >= 0 else _NONE


def _ratio(runs: Sequence[Run], path: Sequence[str]) -> str:
    found = [number for run in runs if (number := _number(run.cell.summary, path)) is not None]
    return f"{statistics.fmean(found):,.1f}" if found else _NONE


def _number(data: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """Return the number at a path of names; None if something else is there, or nothing."""
    value: Any = data
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
