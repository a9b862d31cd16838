"""Who has which examples, as the runs have noted it: for the picture of a partition in the page."""

from collections.abc import Sequence
from typing import Any

from laconic.report.comparison_page.series import Run, Series
from laconic.report.visible import visible

_MAX_WORKERS, _MAX_CLASSES = 100, 100


def partitions_of(series: Sequence[Series]) -> list[dict[str, Any]]:
    """Return each distinct partition of the runs, of the lowest seed, with the examples by worker and class."""
    found: dict[str, dict[str, Any]] = {}
    for one in series:
        for run in one.shown[:1]:
            shares = _shares(run)
            if shares and all(shares != other["shares"] for other in found.values()):
                name = str(run.cell.partition or run.cell.settings.get("partition") or one.label)
                found.setdefault(visible(f"{name}, seed {run.cell.seed}"), {"shares": shares})
    return [{"name": name, **of} for name, of in found.items()]


def _shares(run: Run) -> list[list[int]]:
    """Return by worker its number of examples of each class, or in all; nothing if that is not noted, or not so."""
    noted = run.cell.summary.get("shares")
    if not isinstance(noted, list) or not 0 < len(noted) <= _MAX_WORKERS:
        return []
    shares = [(one.get("of_class") or [one.get("examples")]) if isinstance(one, dict) else [] for one in noted]
    equal = len({len(share) for share in shares}) == 1 and 0 < len(shares[0]) <= _MAX_CLASSES
    return shares if equal and all(type(count) is int for share in shares for count in share) else []
