"""What is shown of a comparison: its lines, the target and the results, as objects and as the data of the page."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from laconic.report.comparison_page.folder import FINISHED, ComparisonFolder
from laconic.report.comparison_page.networks import START, networks_of
from laconic.report.comparison_page.series import (
    Metric,
    Result,
    Run,
    Series,
    differing,
    metric_of,
    result_of,
    series_of,
    settings_of,
    target_of,
)
from laconic.report.comparison_page.shares import partitions_of
from laconic.report.visible import visible, visible_lines

_OF_TITLE = ("task", "dataset", "model")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A comparison as it is shown."""

    comparison: ComparisonFolder
    title: str
    series: tuple[Series, ...]
    names: tuple[str, ...]
    """Of the lines, visible."""
    metric: Metric
    target: float | None
    results: tuple[Result, ...]
    differ: tuple[str, ...]
    """The settings that differ between lines."""
    same: dict[str, Any]
    """The settings that all runs share."""

    @property
    def runs(self) -> list[Run]:
        """The runs of all lines."""
        return [run for one in self.series for run in one.runs]

    def as_data(self) -> dict[str, Any]:
        """Return what the page's scripts read. Its texts are visible, and not yet escaped for HTML."""
        layouts = dict.fromkeys(name for one in self.series if one.timing for name in one.timing.shapes)
        networks = networks_of(self.comparison, self.series)
        return {
            "title": self.title, "command": visible_lines(self.comparison.command), "metric": asdict(self.metric),
            "partitions": partitions_of(self.series), "target": self.target,
            "layouts": list(layouts), "networks": [one.as_data() for one in networks],
            "start": networks[0].texts if networks else START,
            "series": [
                {
                    "number": number, "name": name, "algorithm": visible(one.algorithm), "state": state_of(one),
                    "timing": None if one.timing is None else one.timing.as_data(),
                    "settings": {visible(k): word_of(v) for k, v in settings_of(one).items() if k in self.differ},
                    "runs": [_run(run, self.metric) for run in one.runs],
                }
                for number, (name, one) in enumerate(zip(self.names, self.series, strict=True))
            ],
        }  # fmt: skip


def contents_of(comparison: ComparisonFolder) -> Contents:
    """Read the runs of a comparison, and put together what is shown of them."""
    series = series_of(comparison)
    metric = metric_of(series)
    target = comparison.target if comparison.target is not None else target_of(series, metric)
    differ, same = differing(series)
    return Contents(
        comparison=comparison, title=_title(comparison, same), series=tuple(series), names=tuple(_names(series)),
        metric=metric, target=target, results=tuple(result_of(one, metric, target) for one in series),
        differ=tuple(differ), same=same,
    )  # fmt: skip


def state_of(series: Series) -> str:
    """Return what of a line is not finished, in words; empty if all of it is."""
    states: dict[str, int] = {}
    for run in series.runs:
        state = "no data" if run.cell.state == FINISHED and not run.marks.round else run.cell.state
        states[state] = states.get(state, 0) + 1
    parts = [(state if n == len(series.runs) else f"{n} {state}") for state, n in states.items() if state != FINISHED]
    return visible(", ".join(parts))


def word_of(value: Any) -> str:  # noqa: ANN401 - what a TOML file has
    """Return a setting as text."""
    return visible(value if isinstance(value, str) else json.dumps(value, default=str))


def _title(comparison: ComparisonFolder, same: dict[str, Any]) -> str:
    """Return the settings that say what was trained, as far as all runs share them; otherwise the folder's name."""
    task = {**same, **comparison.task}
    words = [str(task[name]) for name in _OF_TITLE if isinstance(task.get(name), str)]
    if isinstance(task.get("workers"), int):
        words.append(f"{task['workers']} workers")
    return visible(", ".join(words) or comparison.folder.resolve().name)


def _names(series: Sequence[Series]) -> list[str]:
    """Return a name for each line: its label, with network and partition where these differ."""
    return [visible(", ".join(filter(None, (one.label, one.network, one.partition)))) for one in series]


def _run(run: Run, metric: Metric) -> dict[str, Any]:
    cell, marks = run.cell, asdict(run.marks) | {"metric": run.values(metric)}
    del marks["measured"]
    return {
        "seed": cell.seed, "state": visible(cell.state), "why": None if cell.why is None else visible(cell.why),
        "fault": None if run.fault is None else visible(run.fault), "seconds": cell.seconds,
        "marks": marks,
        "compute": None if run.timing is None else run.timing.compute_s, "phases": run.phases,
    }  # fmt: skip
