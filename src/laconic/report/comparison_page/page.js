"use strict";
// The page: controls, the view in the address, the table, and the charts by mouse, touch and keyboard.
const data = JSON.parse(document.getElementById("data").textContent);
const element = id => document.getElementById(id);
const NONE = "\u2013";

// ---- the view, and the address that holds it
const view = {axis: "epochs", layout: "", target: data.target, hidden: new Set(), logX: false, logY: false, line: 0, round: 0, recorded: false, partition: 0,
  texts: {...data.start}, network: null};
const asText = {
  x: () => view.axis === "epochs" ? "" : view.axis, layout: () => view.layout,
  up: () => changed("up"), down: () => changed("down"), latency: () => changed("latency"), compute: () => changed("compute"),
  target: () => view.target === data.target ? "" : String(view.target), hide: () => [...view.hidden].join("."),
  log: () => !view.logX && view.logY === wide ? "" : (view.logX ? "x" : "") + (view.logY ? "y" : "") || "none",
  line: () => view.line ? String(view.line) : "", round: () => view.round ? String(view.round) : "",
  partition: () => view.partition ? String(view.partition) : "",
  recorded: () => view.recorded ? "yes" : "",
  theme: () => document.documentElement.dataset.theme ?? "",
};
// Losses that lie far apart begin on a logarithmic axis.
const losses = data.series.flatMap(series => series.runs.flatMap(run => run.marks.train_loss)).filter(value => value > 0);
const wide = losses.reduce((most, value) => Math.max(most, value), 0) > 30 * losses.reduce((least, value) => Math.min(least, value), Infinity);
const changed = name => view.texts[name] === data.start[name] ? "" : view.texts[name];
function writeAddress() {
  const query = new URLSearchParams();
  for (const [name, text] of Object.entries(asText)) if (text()) query.set(name, text());
  history.replaceState(null, "", String(query) ? `#${query}` : location.pathname);
}
function readAddress() {
  const query = new URLSearchParams(location.hash.slice(1)), get = name => query.get(name) ?? "";
  view.axis = Object.hasOwn(Charts.AXES, get("x")) ? get("x") : "epochs";
  view.layout = data.layouts.includes(get("layout")) ? get("layout") : "";
  for (const name of Object.keys(data.start)) view.texts[name] = query.has(name) ? get(name).slice(0, 40) : data.start[name];
  view.target = query.has("target") && Number.isFinite(+get("target")) ? +get("target") : data.target;
  view.hidden = new Set(get("hide").split(".").filter(Boolean).map(Number).filter(number => number in data.series));
  [view.logX, view.logY] = query.has("log") ? ["x", "y"].map(letter => get("log").includes(letter)) : [false, wide];
  view.line = +get("line") in data.series ? +get("line") : 0;
  view.round = Math.max(0, Math.floor(+get("round") || 0));
  view.partition = +get("partition") in data.partitions ? +get("partition") : 0;
  view.recorded = get("recorded") === "yes";
  if (["light", "dark"].includes(get("theme"))) document.documentElement.dataset.theme = get("theme");
}

// ---- the network that the reader chooses
const READ = {up: Figures.bandwidth, down: Figures.bandwidth, latency: Figures.duration, compute: Figures.duration};
const RANGE = {up: [4, 12], down: [4, 12], latency: [-6, 1], compute: [-6, 2]};  // powers of ten: bits per second, seconds
const EMPTY = {down: "as up", compute: "as recorded"};
function readNetwork() {
  const values = {};
  for (const [name, read] of Object.entries(READ)) {
    const text = view.texts[name].trim(), may = name in EMPTY && (text === "" || text === EMPTY[name]);
    const value = may ? null : read(text), wrong = !may && value === null;
    element(name).setAttribute("aria-invalid", wrong);
    element(`${name}-wrong`).textContent = wrong ? READ[name] === Figures.bandwidth ? "such as 100Mbit" : "such as 10ms, or 0" : "";
    if (wrong) return false;
    values[name] = value;
  }
  view.network = {up: values.up, down: values.down ?? values.up, latency: values.latency, compute: values.compute};
  return true;
}
function showNetwork() {
  for (const name of Object.keys(READ)) {
    const text = view.texts[name], value = READ[name](text || "0");
    if (element(name) !== document.activeElement) element(name).value = text;
    element(name).placeholder = EMPTY[name] ?? "";
    const [low, high] = RANGE[name], slider = element(`${name}-slider`);
    const shown = value === null ? (name === "down" ? view.network.up : 0) : value;
    const power = Math.log10(READ[name] === Figures.bandwidth ? 8 * shown : shown);
    if (slider !== document.activeElement) slider.value = Math.max(low, Math.min(high, Number.isFinite(power) ? power : low));
    slider.setAttribute("aria-valuetext", text || EMPTY[name]);
  }
  const same = data.networks.findIndex(one => Object.keys(data.start).every(name => one[name] === view.texts[name]));
  element("network").value = same < 0 ? "" : String(same);
}
function slide(name) {
  const power = +element(`${name}-slider`).value, [low] = RANGE[name];
  const text = READ[name] === Figures.bandwidth ? Figures.bandwidthText(10 ** power / 8) : Figures.durationText(power <= low ? 0 : 10 ** power);
  view.texts[name] = text;
  updateSoon();
}

// ---- the table
const spread = (of, text) => of === null ? NONE :
  text(of.mean) + (of.deviation === null ? "" : ` <span class="spread">\u00b1 ${of.deviation < 1e-9 * of.mean ? 0 : text(of.deviation)}</span>`);
const count = value => Math.round(value).toLocaleString("en");
function drawTable() {
  const {metric} = data, percent = value => `${(100 * value).toFixed(2)}%`, shown = metric.percent ? percent : Charts.number;
  const rows = data.series.map(series => [series, Figures.result(series, metric, view.target, view.layout, view.network)]);
  const least = Math.min(...rows.filter(([, of]) => of.seeds && of.reached === of.seeds).map(([, of]) => of.total.mean));
  element("results").innerHTML = rows.map(([series, of]) => {
    const all = of.seeds > 0 && of.reached === of.seeds, best = all && of.total.mean === least;
    const cells = [of.final && spread(of.final, shown), `${of.reached} of ${series.runs.length}`,
      spread(of.total, Figures.bytesText), spread(of.up, Figures.bytesText), spread(of.rounds, count),
      spread(of.seconds, Figures.secondsText), spread(of.totalBytes, Figures.bytesText)];
    return `<tr${best ? ' class="best"' : ""}><th scope="row">${swatch(series)}${escapeText(series.name)}` +
      `${series.state ? ` <span class="state">${escapeText(series.state)}</span>` : ""}</th>` +
      cells.map(cell => `<td class="number">${cell || NONE}</td>`).join("") + "</tr>";
  }).join("");
  element("target-says").textContent = view.target === null ? "" :
    `${metric.higher ? "at least" : "at most"} ${shown(view.target)}; costs are means over the seeds that reach it`;
}
const escapeText = text => String(text).replace(/[&<>"']/g, letter => `&#${letter.charCodeAt(0)};`);
// As it stands beside the switch of the line.
const swatch = series => document.querySelector(`[data-series="${series.number}"] + svg`).outerHTML;

// ---- the charts
const config = {displayModeBar: false, displaylogo: false, responsive: true, doubleClick: "reset", scrollZoom: false};
const charts = new Map();  // by id: what makes it, whether it is near the window, and whether it is of an earlier view
function addChart(id, make) { charts.set(id, {make, near: false, old: true}); }
function drawChart(id) {
  const chart = charts.get(id), box = element(id);
  if (!chart.near || !chart.old || !view.network || !window.Plotly) return;
  chart.old = false;
  const {traces, layout, words, best} = chart.make(data, view);
  Plotly.react(box, traces, layout, config);
  chart.at = null;
  box.dataset.traces = traces.length;
  if (words !== undefined) element(`${id}-says`).textContent = words;
  if (best) element(`${id}-says`).textContent = best.length ? `On the dotted line, where no other is both cheaper and better: ${best.join("; ")}.` : "";
}
// The library comes after these scripts, so that the table and the fields work while a browser reads it.
function drawCharts() {
  for (const id of charts.keys()) drawChart(id);
  document.documentElement.dataset.ready = "yes";
}
const watcher = new IntersectionObserver(seen => seen.forEach(({isIntersecting, target}) => {
  charts.get(target.id).near = isIntersecting;
  drawChart(target.id);
}), {rootMargin: "400px"});

// Arrow keys go from point to point and from line to line; + and - zoom, 0 shows all.
function onKey(event) {
  const box = event.currentTarget, chart = charts.get(box.id);
  if (event.ctrlKey || event.metaKey || event.altKey || !box.data) return;
  const lines = [...box.data.keys()].filter(trace => typeof box.data[trace].meta === "number" || box.data[trace].type === "bar");
  const {key} = event;
  if (key === "+" || key === "=") zoom(box, .8);
  else if (key === "-") zoom(box, 1.25);
  else if (key === "0") Plotly.relayout(box, {"xaxis.autorange": true, "yaxis.autorange": true});
  else if (key === "Escape") { chart.at = null; Plotly.Fx.unhover(box); }
  else if (key.startsWith("Arrow") && lines.length) {
    let [line, point] = chart.at ?? [0, -1];
    const across = {ArrowRight: 1, ArrowLeft: -1}[key] ?? 0, along = {ArrowDown: 1, ArrowUp: -1}[key] ?? 0;
    line = (line + along + lines.length) % lines.length;
    point = Math.max(0, Math.min(box.data[lines[line]].x.length - 1, point + across));
    chart.at = [line, point];
    Plotly.Fx.hover(box, [{curveNumber: lines[line], pointNumber: point}]);
    const trace = box.data[lines[line]], text = (trace.hovertext ?? trace.text)[point];
    element("live").textContent = new DOMParser().parseFromString(text.replace(/<br>/g, "; "), "text/html").body.textContent;
  } else return;
  event.preventDefault();
}
function zoom(box, factor) {
  const [low, high] = box.layout.xaxis.range, middle = (low + high) / 2, half = (high - low) / 2 * factor;
  Plotly.relayout(box, {"xaxis.range": [middle - half, middle + half]});
}
function save(id, format) {
  window.Plotly?.downloadImage(element(id), {format, filename: `${id}`, width: 1000, height: 560, scale: format === "png" ? 2 : 1});
}

// ---- all of it, after any change
function update() {
  const fine = readNetwork();
  writeAddress();
  if (!fine) return;
  showNetwork();
  for (const [id, value] of [["logx", view.logX], ["logy", view.logY]]) element(id).checked = value;
  for (const radio of document.querySelectorAll("[name=axis]")) radio.checked = radio.value === view.axis;
  for (const box of document.querySelectorAll("[data-series]")) box.checked = !view.hidden.has(+box.dataset.series);
  element("layout").value = view.layout;
  if (element("target") !== document.activeElement) element("target").value = view.target === null ? "" :
    +((data.metric.percent ? 100 : 1) * view.target).toPrecision(8);
  element("line").value = String(view.line);
  element("partition").value = String(view.partition);
  const rounds = data.series[view.line]?.runs.find(run => run.marks.round.length)?.marks.round ?? [1];
  view.round = Math.min(view.round, rounds[rounds.length - 1] - 1);
  element("round").max = element("round-slider").max = rounds[rounds.length - 1] - 1;
  for (const id of ["round", "round-slider"]) if (element(id) !== document.activeElement) element(id).value = view.round;
  element("as-recorded").hidden = !Charts.recordedRun(data.series[view.line]);
  element("recorded").checked = view.recorded;
  drawTable();
  element("network-says").textContent = networkText();
  for (const [id, chart] of charts) { chart.old = true; drawChart(id); }
}
let waiting = 0;
function updateSoon() { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(update); }
function networkText() {
  const shown = data.series.filter(series => series.timing && !view.hidden.has(series.number));
  const times = shown.map(series => [series.name, Figures.planned(series, series.runs.find(run => run.marks.round.length), view.layout, view.network)]);
  const others = view.layout ? shown.filter(series => Figures.layoutOf(series, view.layout) !== view.layout).map(series => series.name) : [];
  const untimed = data.series.filter(series => !series.timing).map(series => series.name);
  return `A round takes ${times.map(([name, time]) => `${Figures.secondsText(time)} with ${name}`).join("; ") || "an unknown time"}.` +
    (others.length ? ` On their own layout, since ${view.layout} is not theirs: ${others.join("; ")}.` : "") +
    (untimed.length ? ` Not timed: ${untimed.join("; ")}.` : "");
}

function listen() {
  for (const radio of document.querySelectorAll("[name=axis]")) radio.addEventListener("change", () => { view.axis = radio.value; update(); });
  for (const box of document.querySelectorAll("[data-series]")) box.addEventListener("change", () => {
    view.hidden[box.checked ? "delete" : "add"](+box.dataset.series);
    update();
  });
  element("all").addEventListener("click", () => { view.hidden.clear(); update(); });
  element("none").addEventListener("click", () => { data.series.forEach(series => view.hidden.add(series.number)); update(); });
  for (const name of Object.keys(READ)) {
    element(name).addEventListener("input", () => { view.texts[name] = element(name).value; update(); });
    element(`${name}-slider`).addEventListener("input", () => slide(name));
  }
  element("network").addEventListener("change", () => {
    const chosen = data.networks[+element("network").value];
    if (chosen && element("network").value) view.texts = Object.fromEntries(Object.keys(data.start).map(name => [name, chosen[name]]));
    update();
  });
  element("layout").addEventListener("change", () => { view.layout = element("layout").value; update(); });
  element("logx").addEventListener("change", () => { view.logX = element("logx").checked; update(); });
  element("logy").addEventListener("change", () => { view.logY = element("logy").checked; update(); });
  element("target").addEventListener("input", () => {
    const value = parseFloat(element("target").value);
    view.target = Number.isFinite(value) ? value / (data.metric.percent ? 100 : 1) : null;
    update();
  });
  element("partition").addEventListener("change", () => { view.partition = +element("partition").value; update(); });
  element("recorded").addEventListener("change", () => { view.recorded = element("recorded").checked; update(); });
  element("line").addEventListener("change", () => { view.line = +element("line").value; update(); });
  for (const id of ["round", "round-slider"]) element(id).addEventListener("input", () => { view.round = Math.max(0, Math.floor(+element(id).value || 0)); updateSoon(); });
  element("theme").addEventListener("click", () => {
    const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = (root.dataset.theme || (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
    update();
  });
  const copy = element("copy");
  if (copy) copy.addEventListener("click", copyCommand);
  for (const button of document.querySelectorAll("[data-save]")) button.addEventListener("click", () => save(button.dataset.chart, button.dataset.save));
  addEventListener("hashchange", () => { readAddress(); update(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update);
  addEventListener("beforeprint", () => { for (const [id, chart] of charts) { chart.near = true; drawChart(id); } });
  let wide = innerWidth < 600;
  addEventListener("resize", () => { if (wide !== innerWidth < 600) { wide = !wide; update(); } });
}
async function copyCommand() {
  const text = element("command").textContent, says = element("copy-says");
  try {
    await navigator.clipboard.writeText(text);
    says.textContent = "copied";
  } catch {  // a page from a file may not write to the clipboard: select it, so that one key copies it
    getSelection().selectAllChildren(element("command"));
    says.textContent = document.execCommand("copy") ? "copied" : "selected: press Ctrl C";
  }
}

readAddress();
const PICTURE_IDS = {metric: Charts.metric, loss: Charts.loss, front: Charts.front, timeline: Charts.timeline};
if (data.metric.name === "train_loss") {  // it has a chart of its own
  element("metric").closest("figure").hidden = true;
  delete PICTURE_IDS.metric;
}
for (const [id, make] of Object.entries(PICTURE_IDS)) addChart(id, make);
if (data.partitions.length) {
  element("shares-section").hidden = false;
  element("partition").replaceChildren(...data.partitions.map(({name}, number) => new Option(name, String(number))));
  addChart("shares", Charts.shares);
}
for (const name of Object.keys(Charts.PICTURES)) {
  const has = Charts.pictures(data).includes(name);
  element(`figure-${name}`).hidden = !has;
  if (has) addChart(name, Charts.picture(name));
}
element("no-pictures").hidden = Charts.pictures(data).length > 0;
listen();
for (const id of charts.keys()) { element(id).addEventListener("keydown", onKey); watcher.observe(element(id)); }
update();
