"""The networks that a reader finds in a page: those of the comparison, those that its runs assumed, and a usual one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from laconic.report.comparison_page.folder import ComparisonFolder
from laconic.report.comparison_page.series import Series
from laconic.report.visible import visible
from laconic.units import bandwidth, duration_or_zero

START = {"up": "100Mbit", "down": "", "latency": "10ms", "compute": ""}
"""What a page starts with where the runs say nothing. An empty download is as the upload; an empty compute time is as
recorded.
"""


@dataclass(frozen=True, kw_only=True)
class PageNetwork:
    """A network by name, as the texts of the page's fields."""

    name: str
    texts: dict[str, str]

    def as_data(self) -> dict[str, str]:
        """Return plain data for JSON."""
        return {"name": self.name, **self.texts}


def networks_of(comparison: ComparisonFolder, series: Sequence[Series]) -> list[PageNetwork]:
    """Return the networks to choose from, the first one to start with. What the page cannot read is left out."""
    named = [(visible(name), options) for name, options in comparison.networks.items()]
    assumed = [("as simulated", run.cell.settings) for one in series for run in one.runs if run.cell.settings]
    found: list[PageNetwork] = []
    for name, options in [*named, *assumed]:
        texts = _texts(options)
        if texts is not None and all(texts != other.texts for other in found):
            found.append(PageNetwork(name=name, texts=texts))
    usual = PageNetwork(name="100 Mbit/s, 10 ms", texts=dict(START))
    return [*found, *([usual] if all(usual.texts != other.texts for other in found) else [])]


def _texts(options: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the texts of the fields; None for a network without bandwidth, or with what the page has no field for."""
    up = options.get("up", options.get("bandwidth"))
    down, latency, compute = options.get("down", ""), options.get("latency", "0"), options.get("compute", "")
    texts = {"up": up, "down": down, "latency": latency, "compute": compute}
    if "sites" in options or not all(isinstance(text, str) for text in texts.values()):
        return None
    try:
        for name, text in texts.items():
            if text:
                (bandwidth if name in ("up", "down") else duration_or_zero)(text)
    except ValueError:
        return None
    return {name: str(text) for name, text in texts.items()} if up else None
