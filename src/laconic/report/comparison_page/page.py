"""The page of a comparison: one HTML file with its data, style, scripts and plotly, which refers to nothing else."""

import html
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from laconic.lab.json_text import json_text
from laconic.report.comparison_page.contents import Contents, state_of, word_of
from laconic.report.comparison_page.folder import FINISHED
from laconic.report.comparison_page.marks import MAX_MARKS
from laconic.report.comparison_page.parts import parts_table
from laconic.report.comparison_page.series import Result, settings_of
from laconic.report.estimate import Estimate
from laconic.report.visible import visible, visible_lines
from laconic.units import bytes_text

_HERE = Path(__file__).parent
_DARK = (
    "--page:#14161a;--raised:#1d2026;--ink:#e7e9ec;--faint:#a3abb6;--line:#353b44;--focus:#56B4E9;--tip:#f2f2f2;"
    "--tip-ink:#111;--good:#1b3327;--series-0:#4da3e0;--series-1:#ff8a4a;--series-2:#2fc79a;--series-3:#e294c4;"
    "--series-4:#e8b23d;--series-5:#8fd0f5;--series-6:#f0f0f0"
)
_NONE = "\u2013"
_SCRIPTS = ("clock", "figures", "charts", "page")
_COLORS, _DASHES = 7, ("", "5 3", "2 2", "6 2 2 2")
_SLIDERS = {  # powers of ten of bits per second, or of seconds
    "up": ("upload of each machine", 4, 12), "down": ("download of each machine", 4, 12), "latency": ("latency", -6, 1),
    "compute": ("time of a gradient", -6, 2),
}  # fmt: skip
_CHARTS = ("metric", "loss", "front", "shares", "timeline")
_PICTURES = {
    "skips": "Packets that workers skipped", "answers": "Answers that servers skipped", "staleness": "Staleness",
    "residual": "Residuals", "agreement": "Agreement of votes", "aborted": "Rounds without effect",
}  # fmt: skip
_FILES = "Beside this page: curves.png and curves.svg, table.csv, and report.json with all figures."
_OPEN = 6  # that many runs with something to know are shown at once


def page_of(contents: Contents) -> tuple[str, dict[str, Any]]:
    """Return the page and the data in it. Names from the folder stay text in all parts of it."""
    data = contents.as_data()
    filled = _filled(contents, data) | {
        "DATA": _embedded(data), "PLOTLY": _script(plotly_script()),
        **{name.upper(): _script(_read(f"{name}.js")) for name in _SCRIPTS},
    }  # fmt: skip
    # In one pass: a name that looks like a mark is no mark.
    return re.sub("@([A-Z_]+)@", lambda mark: filled[mark[1]], _read("page.html")), data


def plotly_script() -> str:
    """Return plotly's own script, from its installed package. Importing the package would take a second."""
    found = importlib.util.find_spec("plotly")
    assert found is not None, "it is a dependency"
    assert found.origin is not None, "it has an __init__.py"
    return (Path(found.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _script(text: str) -> str:
    """Return a script that no browser ends early: "</script" in a string of it would, and "<!--" hides its end."""
    return re.sub("</(?=script)", r"<\\/", text, flags=re.IGNORECASE).replace("<!--", r"<\!--")


def _embedded(data: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    """Return JSON in which no browser finds a mark."""
    return json_text(data, indent=None).strip().replace("<", "\\u003c").replace("&", "\\u0026")


def _filled(contents: Contents, data: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTML of each mark of the page but for the data and the scripts."""
    names, metric = contents.names, contents.metric
    return {
        "TITLE": _text(contents.title), "STYLE": _read("page.css").replace("@DARK@", _DARK),
        "SUMMARY": _text(_summary(contents)), "TROUBLE": _trouble(contents),
        "SERIES": "".join(_switch(number, name) for number, name in enumerate(names)),
        "METRIC": _text(metric.words), "METRIC_TITLE": _text(metric.words[0].upper() + metric.words[1:]),
        "UNIT": "%" if metric.percent else "",
        "RESULTS": "".join(_row(name, one, contents) for name, one in zip(names, contents.results, strict=True)),
        "NETWORKS": _options(enumerate(one["name"] for one in data["networks"])),
        "LAYOUTS": _options((name, name) for name in data["layouts"]), "LINES": _options(enumerate(names)),
        "SLIDERS": "".join(_slider(name, *of) for name, of in _SLIDERS.items()),
        "PICTURES": "".join(_picture(name, title) for name, title in _PICTURES.items()),
        "DOWNSAMPLED": _text(_downsampled(contents)), "DIFFERENCES": _differences(contents),
        "PARTS": parts_table(contents.series, names), "SAME": _pairs("tr", contents.same),
        "COMMAND": _command(contents.comparison.command),
        "PROVENANCE": _pairs("", {**contents.comparison.versions, **contents.comparison.machine}),
        "FILES": _text(_FILES), **{f"SAVE_{name.upper()}": _save(name) for name in _CHARTS},
    }  # fmt: skip


def _text(text: str) -> str:
    return html.escape(visible(text))


def _swatch(number: int) -> str:
    return (
        '<svg class="swatch" viewBox="0 0 22 8" aria-hidden="true"><line x1="0" x2="22" y1="4" y2="4" stroke-width="3" '
        f'stroke="var(--series-{number % _COLORS})" '
        f'stroke-dasharray="{_DASHES[number // _COLORS % len(_DASHES)]}"/></svg>'
    )


def _switch(number: int, name: str) -> str:
    return f'<label><input type="checkbox" data-series="{number}" checked>{_swatch(number)}{_text(name)}</label>'


def _options(pairs: Iterable[tuple[object, str]]) -> str:
    return "".join(f'<option value="{_text(str(value))}">{_text(name)}</option>' for value, name in pairs)


def _slider(name: str, words: str, low: int, high: int) -> str:
    return (
        f'<div class="one"><label for="{name}">{words}</label><input type="range" id="{name}-slider" min="{low}" '
        f'max="{high}" step="0.05" aria-label="{words}"><input type="text" id="{name}" size="9" autocomplete="off" '
        f'spellcheck="false" aria-describedby="{name}-wrong"><span class="wrong" id="{name}-wrong"></span></div>'
    )


def _picture(name: str, title: str) -> str:
    return (
        f'<figure id="figure-{name}"><div class="bar"><h3 id="{name}-title">{title}</h3>{_save(name)}</div>'
        f'<div class="chart" id="{name}" tabindex="0" role="application" aria-roledescription="chart" '
        f'aria-labelledby="{name}-title" aria-describedby="keys"></div></figure>'
    )


def _save(name: str) -> str:
    buttons = (
        f'<button type="button" data-chart="{name}" data-save="{kind.lower()}" aria-label="Save this chart as {kind}">'
        f"{kind}</button>"
        for kind in ("PNG", "SVG")
    )
    return f'<span class="small">{" ".join(buttons)}</span>'


def _summary(contents: Contents) -> str:
    runs = contents.runs
    seeds = sorted({run.cell.seed for run in runs})
    finished = sum(run.cell.state == FINISHED for run in runs)
    listed = ", ".join(map(str, seeds[:6])) + (", ..." if len(seeds) > 6 else "")
    return f"{len(runs)} run{'s' * (len(runs) != 1)}, {finished} finished; seed{'s' * (len(seeds) != 1)} {listed}."


def _trouble(contents: Contents) -> str:
    """Return the runs that failed, diverged or cannot be read, each with why."""
    lines = [
        f"<li>{_text(name)}, seed {run.cell.seed}: {_text(run.cell.state)}{f': {_text(why)}' if why else ''}</li>"
        for name, one in zip(contents.names, contents.series, strict=True)
        for run in one.runs
        if (why := run.cell.why or run.fault) or run.cell.state != FINISHED
    ]
    if not lines:
        return ""
    opened = " open" if len(lines) <= _OPEN else ""
    runs = f"{len(lines)} run{'s' * (len(lines) != 1)}"
    return (
        f'<details{opened} class="panel"><summary>{runs} with something to know</summary>'
        f"<ul>{''.join(lines)}</ul></details>"
    )


def _row(name: str, result: Result, contents: Contents) -> str:
    """Return a line of the table at the first target, as it stands where scripts are off."""
    percent = contents.metric.percent

    def share(value: float) -> str:
        return f"{value:.2%}" if percent else f"{value:.4g}"

    up, down = result.total_up, result.total_down
    full = _NONE if up is None or down is None else bytes_text(up.mean + down.mean)
    cells = [
        _estimate(result.final, share), f"{result.reached} of {len(result.series.runs)}",
        _estimate(result.total, bytes_text), _estimate(result.up, bytes_text),
        _estimate(result.rounds, lambda value: f"{value:,.0f}"), _NONE, full,
    ]  # fmt: skip
    state = state_of(result.series)
    head = f"{_text(name)} <span class=state>{_text(state)}</span>" if state else _text(name)
    return f'<tr><th scope="row">{head}</th>{"".join(f"<td class=number>{one}</td>" for one in cells)}</tr>'


def _estimate(of: Estimate | None, text: Callable[[float], str]) -> str:
    if of is None:
        return _NONE
    return text(of.mean) + ("" if of.deviation is None else f" <span class=spread>± {text(of.deviation)}</span>")


def _downsampled(contents: Contents) -> str:
    longest = max((run.marks.n_rounds for run in contents.runs), default=0)
    if longest <= MAX_MARKS:
        return ""
    return (
        f"A run of up to {longest:,} rounds is drawn with at most {MAX_MARKS + 1} points: losses and norms are means "
        "over the rounds between two points; bytes are exact at each."
    )


def _differences(contents: Contents) -> str:
    if not contents.differ:
        return "<p>All runs have the same settings but for their seeds.</p>"
    settings = [settings_of(one) for one in contents.series]
    names = "".join(f'<th scope="col">{_text(name)}</th>' for name in contents.names)
    rows = "".join(
        f'<tr><th scope="row">{_text(key)}</th>'
        + "".join(f"<td>{_text(word_of(of[key])) if key in of else _NONE}</td>" for of in settings)
        + "</tr>"
        for key in contents.differ
    )
    return (
        '<div class="scrolls" tabindex="0" role="region" aria-label="Settings that differ"><table>'
        f'<thead><tr><th scope="col">differs</th>{names}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _pairs(row: str, values: Mapping[str, Any]) -> str:
    """Return names with their values: rows of a table, or of a list of terms."""
    opened, between, closed = (
        ('<tr><th scope="row">', "</th><td>", "</td></tr>") if row else ("<dt>", "</dt><dd>", "</dd>")
    )
    return "".join(
        f"{opened}{_text(name)}{between}{_text(word_of(value))}{closed}"
        for name, value in values.items()
        if value is not None
    )


def _command(command: str) -> str:
    if not command:
        return ""
    return (
        f'<pre id="command" tabindex="0" aria-label="The command">{html.escape(visible_lines(command))}</pre>'
        '<p class="needs-script"><button type="button" id="copy">Copy the command</button> '
        '<span id="copy-says" role="status"></span></p>'
    )
