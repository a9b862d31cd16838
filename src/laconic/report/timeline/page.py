"""A timeline as one HTML page, without network access: hover for details, wheel or keys to zoom, drag to move."""

import html
import json

from laconic.network import Message, TimedOperation
from laconic.report.timeline.bars import BarKind, Stretch, Timeline


def timeline_page(timeline: Timeline) -> str:
    """Return the page, which includes its data, style and script."""
    kinds = list(BarKind)
    data = {
        "lanes": timeline.lanes,
        "first": timeline.begin_ns,
        "last": timeline.last_ns,
        "kinds": [kind.name.lower() for kind in kinds],
        "bars": [
            [bar.lane, kinds.index(bar.kind), bar.start_ns, bar.end_ns, bar.step, timeline.label(bar)]
            for bar in timeline.bars
        ],
        "steps": [
            {"start": timed.start_ns, "end": timed.end_ns, "requested": timed.requested_ns, **_details(timeline, timed)}
            for timed in timeline.steps
        ],
    }
    used = {bar.kind for bar in timeline.bars}
    legend = "".join(
        f'<span><i class="{kind.name.lower()}"></i>{html.escape(kind.words)}</span>' for kind in kinds if kind in used
    )
    colors = "".join(f".{kind.name.lower()}{{fill:{kind.color};background:{kind.color}}}" for kind in kinds)
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in timeline.notes)
    # "<" cannot stand in a script's data: "</script>" would end it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    page = _PAGE
    for mark, value in (
        ("@COLORS@", colors), ("@LEGEND@", legend), ("@NOTES@", notes),
        ("@TITLE@", html.escape(timeline.title)), ("@DATA@", text),
    ):  # fmt: skip
        page = page.replace(mark, value, 1 if mark == "@DATA@" else -1)
    return page


def _details(timeline: Timeline, timed: TimedOperation | Stretch) -> dict[str, str | int]:
    """Return what the page shows of a step beside its times."""
    if isinstance(timed, Stretch):
        return {"node": timeline.nodes[timed.node], "doing": timed.kind.words, "round": timed.round}
    step = timed.step
    if isinstance(step, Message):
        sender, receiver = timeline.nodes[step.sender], timeline.nodes[step.receiver]
        return {"sender": sender, "receiver": receiver, "bytes": step.n_bytes}
    return {"node": timeline.nodes[step.node], "doing": BarKind.COMPUTE.words}


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>@TITLE@</title>
<style>
body{font:14px system-ui,sans-serif;margin:1.5em;color:#222;background:#fff}
h1{font-size:1.2em;margin:0 0 .4em}
ul{margin:.2em 0;padding-left:1.2em;color:#555}
.legend span{margin-right:1.4em;white-space:nowrap}
.legend i{display:inline-block;width:1.1em;height:1.1em;margin-right:.4em;vertical-align:-.2em;border:1px solid #444}
#chart{width:100%;cursor:grab;touch-action:none;user-select:none;display:block;margin-top:.6em}
#chart:focus{outline:2px solid #56B4E9}
#chart .bar{stroke:#444;stroke-width:.6}
#chart .lit{stroke:#000;stroke-width:2.4}
#chart text{font-size:12px;fill:#222}
#chart .on{fill:#fff;font-size:11px;pointer-events:none;text-anchor:middle}
#chart .tick{stroke:#ddd}
#tip{position:fixed;display:none;pointer-events:none;background:#222;color:#fff;padding:.45em .7em;border-radius:4px;
white-space:pre;font-size:13px;z-index:1}
.keys{color:#666}
@COLORS@
</style>
</head>
<body>
<h1>@TITLE@</h1>
<ul>@NOTES@</ul>
<div class="legend">@LEGEND@</div>
<svg id="chart" tabindex="0" role="img" aria-label="@TITLE@"></svg>
<p class="keys">Hover over a bar for details. Zoom: wheel, + and -. Move: drag, arrow keys. Reset: double click, 0.</p>
<div id="tip"></div>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const chart = document.getElementById("chart"), tip = document.getElementById("tip");
const LANE = 24, TOP = 6, FOOT = 34;
const LEFT = 16 + 7.2 * Math.max(...data.lanes.map(name => name.length));
const whole = Math.max(data.last - data.first, 1);
let from = data.first, span = whole, lit = -1, drag = null;
const escaped = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
const room = () => Math.max(chart.clientWidth - LEFT - 12, 50);
const xOf = time => LEFT + (time - from) / span * room();

function timeText(ns, digits) {
  const [scale, unit] = [[1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]].find(one => data.last >= one[0]) || [1, "ns"];
  return +(ns / scale).toFixed(digits === undefined ? 9 : digits) + " " + unit;
}
function draw() {
  const height = TOP + LANE * data.lanes.length, out = [];
  chart.setAttribute("height", height + FOOT);
  const raw = span / Math.max(room() / 110, 1), power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= raw) || raw;
  for (let time = Math.ceil(from / step) * step; time <= from + span; time += step) {
    const x = xOf(time);
    out.push(`<line class="tick" x1="${x}" x2="${x}" y1="${TOP}" y2="${height}"/>`);
    out.push(`<text x="${x}" y="${height + 18}" text-anchor="middle">${timeText(time)}</text>`);
  }
  data.lanes.forEach((name, lane) =>
    out.push(`<text x="${LEFT - 8}" y="${TOP + LANE * lane + 16}" text-anchor="end">${escaped(name)}</text>`));
  out.push(`<clipPath id="inside"><rect x="${LEFT}" y="0" width="${room()}" height="${height}"/></clipPath>`);
  out.push('<g clip-path="url(#inside)">');
  for (const [lane, kind, start, end, number, label] of data.bars) {
    if (end < from || start > from + span) continue;
    const x = Math.max(xOf(start), LEFT - 9), width = Math.max(Math.min(xOf(end), LEFT + room() + 9) - x, 0.5);
    const y = TOP + LANE * lane + 2, on = number === lit ? " lit" : "";
    out.push(`<rect class="bar ${data.kinds[kind]}${on}" data-step="${number}" x="${x}" y="${y}" ` +
      `width="${width}" height="${LANE - 4}"/>`);
    if (label && width > 7 * label.length)
      out.push(`<text class="on" x="${x + width / 2}" y="${y + 14}">${escaped(label)}</text>`);
  }
  out.push("</g>");
  chart.innerHTML = out.join("");
}
function zoom(factor, x) {
  const at = from + (x - LEFT) / room() * span;
  const next = Math.min(Math.max(span * factor, Math.min(20, whole)), whole);
  from = at - (at - from) * next / span;
  span = next;
  move(0);
}
function move(by) {
  from = Math.min(Math.max(from + by, data.first), data.first + whole - span);
  draw();
}
function facts(step) {
  const lines = step.sender === undefined ? [`${step.node}: ${step.doing}`] :
    [`sender    ${step.sender}`, `receiver  ${step.receiver}`, `bytes     ${step.bytes.toLocaleString("en")}`];
  if (step.round !== undefined) lines.push(`round     ${step.round}`);
  if (step.requested < step.start) lines.push(`requested ${timeText(step.requested)}`);
  lines.push(`start     ${timeText(step.start)}`, `end       ${timeText(step.end)}`);
  return lines.join("\\n");
}
function point(event) {
  const number = event.target.dataset && event.target.dataset.step !== undefined ? +event.target.dataset.step : -1;
  if (number !== lit) { lit = number; draw(); }
  tip.style.display = number < 0 ? "none" : "block";
  if (number < 0) return;
  tip.textContent = facts(data.steps[number]);
  tip.style.fontFamily = "ui-monospace,monospace";
  tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8) + "px";
}
chart.addEventListener("wheel", event => {
  event.preventDefault();
  zoom(event.deltaY < 0 ? 0.8 : 1.25, event.clientX - chart.getBoundingClientRect().left);
}, {passive: false});
chart.addEventListener("pointerdown", event => { drag = [event.clientX, from]; chart.style.cursor = "grabbing"; });
addEventListener("pointerup", () => { drag = null; chart.style.cursor = ""; });
chart.addEventListener("pointermove", event => {
  if (drag === null) { point(event); return; }
  from = drag[1];
  move((drag[0] - event.clientX) / room() * span);
});
chart.addEventListener("pointerleave", () => { tip.style.display = "none"; lit = -1; draw(); });
chart.addEventListener("dblclick", () => { from = data.first; span = whole; draw(); });
chart.addEventListener("keydown", event => {
  const middle = LEFT + room() / 2;
  if (event.key === "+" || event.key === "=") zoom(0.8, middle);
  else if (event.key === "-") zoom(1.25, middle);
  else if (event.key === "ArrowLeft") move(-span / 10);
  else if (event.key === "ArrowRight") move(span / 10);
  else if (event.key === "0") zoom(whole / span, middle);
  else return;
  event.preventDefault();
});
addEventListener("resize", draw);
draw();
</script>
</body>
</html>
"""
