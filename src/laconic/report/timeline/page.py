"""A timeline as one HTML page without network access: by mouse, touch and keyboard, light or dark, and as a table."""

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path

from laconic.network import Message, TimedOperation
from laconic.report.timeline.bars import BarKind, Stretch, Timeline
from laconic.report.visible import visible

_PAGE = Path(__file__).with_name("page.html")
_DARK = (
    "--page:#16181c;--ink:#e6e6e6;--faint:#a8adb5;--line:#3a3f47;--edge:#0d0e10;--mark:#fff;--focus:#56B4E9;"
    "--tip:#f2f2f2;--tip-ink:#111"
)
# Latency and waiting differ from the others without color too.
_LINES = {
    BarKind.LATENCY: '<circle cx="3" cy="3" r=".9" fill="#444"/>',
    BarKind.WAIT: '<path d="M-1 7L7 -1" stroke="#444" stroke-width=".7"/>',
    BarKind.EXCHANGE: '<path d="M-1 7L7 -1" stroke="#444" stroke-width=".7"/>',
}
_CELL = 6  # side of a pattern


def timeline_page(timeline: Timeline) -> str:
    """Return the page, which includes its data, style and script. Names from outside stay text in all of them."""
    kinds = list(BarKind)
    data = {
        "clock": timeline.clock,
        "unit": timeline.unit,
        "lanes": [visible(lane) for lane in timeline.lanes],
        "first": timeline.begin_ns,
        "last": timeline.last_ns,
        "kinds": [kind.name.lower() for kind in kinds],
        "words": [kind.words for kind in kinds],
        "bars": [
            [bar.lane, kinds.index(bar.kind), bar.start_ns, bar.end_ns, bar.step, visible(timeline.label(bar))]
            for bar in timeline.bars
        ],
        "steps": [
            {"start": timed.start_ns, "end": timed.end_ns, "requested": timed.requested_ns, **_details(timeline, timed)}
            for timed in timeline.steps
        ],
    }
    # No "<" in a script's data: "</script>" would end it, and "<!--" would hide its end.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    filled = {
        "TITLE": _text(timeline.title),
        "DARK": _DARK,
        "COLORS": "".join(
            f".{kind.name.lower()}{{fill:{f'url(#p-{kind.name.lower()})' if kind in _LINES else kind.color}}}"
            f"#chart .on-{kind.name.lower()}{{fill:{kind.ink}}}"
            for kind in kinds
        ),
        "PATTERNS": "".join(
            f'<pattern id="p-{kind.name.lower()}" width="{_CELL}" height="{_CELL}" patternUnits="userSpaceOnUse">'
            f'<rect width="{_CELL}" height="{_CELL}" fill="{kind.color}"/>{lines}</pattern>'
            for kind, lines in _LINES.items()
        ),
        "LEGEND": "".join(
            f'<li><svg viewBox="0 0 16 16" aria-hidden="true"><rect class="bar {kind.name.lower()}" width="16" '
            f'height="16"/></svg>{_text(kind.words)}</li>'
            for kind in timeline.kinds
        ),
        "NOTES": "".join(f"<li>{_text(note)}</li>" for note in timeline.notes),
        "TABLE": _table(timeline),
        "DATA": text,
    }
    # In one pass: a name that looks like a mark is no mark.
    return re.sub("@([A-Z]+)@", lambda mark: filled[mark[1]], _PAGE.read_text(encoding="utf-8"))


def _text(text: str) -> str:
    return html.escape(visible(text))


def _details(timeline: Timeline, timed: TimedOperation | Stretch) -> dict[str, str | int]:
    """Return what the page shows of a step beside its times."""
    if isinstance(timed, Stretch):
        return {"node": visible(timeline.nodes[timed.node]), "doing": timed.kind.words, "round": timed.round}
    step = timed.step
    if isinstance(step, Message):
        sender, receiver = (visible(timeline.nodes[node]) for node in (step.sender, step.receiver))
        return {"sender": sender, "receiver": receiver, "bytes": step.n_bytes}
    return {"node": visible(timeline.nodes[step.node]), "doing": BarKind.COMPUTE.words}


def _table(timeline: Timeline) -> str:
    """Return all steps as a table, for those who do not see the chart, or cannot run its script."""
    unit, scale_ns = timeline.unit
    recorded = any(isinstance(timed, Stretch) for timed in timeline.steps)
    own = ["machine", "what", "round"] if recorded else ["machine", "what", "to", "bytes", f"requested ({unit})"]
    head = [*own, f"start ({unit})", f"end ({unit})"]
    n_texts = own.index("round" if recorded else "bytes")

    def cells(timed: TimedOperation | Stretch) -> list[str]:
        times = [f"{ns / scale_ns:.9g}" for ns in (timed.requested_ns, timed.start_ns, timed.end_ns)]
        if isinstance(timed, Stretch):
            return [timeline.nodes[timed.node], timed.kind.words, str(timed.round), *times[1:]]
        step = timed.step
        if isinstance(step, Message):
            return [timeline.nodes[step.sender], "sending", timeline.nodes[step.receiver], f"{step.n_bytes:,}", *times]
        return [timeline.nodes[step.node], BarKind.COMPUTE.words, "", "", *times]

    return (
        f"<table><caption>{_text(timeline.title)}; {_text(timeline.clock)}</caption>\n<thead>"
        f"{_row(head, n_texts, 'th scope=col')}</thead>\n<tbody>"
        + "\n".join(_row(cells(timed), n_texts, "td") for timed in timeline.steps)
        + "</tbody></table>"
    )


def _row(cells: Sequence[str], n_texts: int, kind: str) -> str:
    """Return a row of the table. `kind` is what opens each cell; all but the leading texts are numbers."""
    end = kind.split()[0]
    shown = (
        f"<{kind}{' class=number' if place >= n_texts else ''}>{_text(cell)}</{end}>"
        for place, cell in enumerate(cells)
    )
    return f"<tr>{''.join(shown)}</tr>"
