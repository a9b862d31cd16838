"use strict";
// The charts: traces and layouts for plotly from figures and the view. Names from the folder are escaped, since plotly
// reads some of HTML in its texts.
const Charts = (() => {
  const AXES = {
    rounds: "rounds", epochs: "epochs", up: "bytes up, all workers", total: "bytes up and down, all workers",
    seconds: "seconds on the chosen network",
  };
  const PICTURES = {
    skips: ["% of packets", run => run.marks.skips_up, 100],
    answers: ["% of answers", run => run.marks.skips_down, 100],
    staleness: ["largest staleness of a round", run => run.marks.staleness_max, 1],
    residual: ["norm of all workers' residuals", run => run.marks.residual_norm, 1],
    agreement: ["agreement of votes (%)", run => run.marks.vote_agreement, 100],
    aborted: ["% of rounds", run => run.marks.aborted, 100],
  };
  const KINDS = {
    compute: ["computing", "#E69F00", ""], send: ["sending", "#0072B2", ""], receive: ["receiving", "#56B4E9", "/"],
  };
  const MOST_NODES = 32, MOST_MESSAGES = 4000, SMOOTH = 40;
  const DASHES = ["solid", "dash", "dot", "dashdot"], SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
  const escaped = text => String(text).replace(/[&<>"']/g, letter => `&#${letter.charCodeAt(0)};`);
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colorOf = series => css(`--series-${series.number % 7}`);
  const dashOf = series => DASHES[Math.floor(series.number / 7) % 4];
  const symbolOf = series => SYMBOLS[series.number % 6];
  const faint = color => `${color}2e`;  // as #rrggbbaa

  // A logarithmic axis, with labels at 1, 2 and 5 where there is space for them.
  function logarithmic(traces, name) {
    const values = traces.flatMap(trace => [...trace[name]]).filter(value => value > 0);
    const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, 0]);
    return {type: "log", exponentformat: "power", ...(high < 3000 * low && {dtick: "D2"})};
  }
  const isPhone = () => innerWidth < 600;
  function layout(x, y, more = {}) {
    const ink = css("--ink"), line = css("--line"), phone = isPhone();
    const axis = {gridcolor: line, linecolor: css("--faint"), zerolinecolor: line, ticks: "outside", tickcolor: line,
      automargin: true, title: {standoff: 8}, nticks: phone ? 5 : 9};
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: {family: "system-ui, sans-serif", size: 13, color: ink},
      height: phone ? 300 : 380, margin: {l: phone ? 48 : 62, r: 12, t: 10, b: 48}, showlegend: false, hovermode: "closest",
      hoverlabel: {bgcolor: css("--tip"), font: {color: css("--tip-ink"), family: "system-ui, sans-serif"}, align: "left"},
      dragmode: "zoom", ...more,
      xaxis: {...axis, ...x, title: {...axis.title, text: x.title}}, yaxis: {...axis, ...y, title: {...axis.title, text: y.title}},
    };
  }

  // Lines with bands. `read` returns a run's values by mark; `scale` makes percents of shares.
  function lines(data, view, read, scale, y, most) {
    const traces = [], {axis, network} = view;
    for (const series of data.series) {
      if (view.hidden.has(series.number)) continue;
      const runs = series.runs.map(run => ({run, x: run.marks.round.length ? Figures.costs(series, run, axis, view.layout, network) : null}));
      const points = Figures.course(runs, read, most);
      if (!points.x.length) continue;
      const color = colorOf(series), bands = points.seeds.some(seeds => seeds > 1);
      const common = {x: points.x, type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false};
      if (bands) {
        traces.push({...common, y: points.low.map(value => scale * value), line: {width: 0}, meta: "band"});
        traces.push({...common, y: points.high.map(value => scale * value), line: {width: 0}, fill: "tonexty",
          fillcolor: faint(color), meta: "band"});
      }
      traces.push({
        ...common, mode: points.x.length > 25 ? "lines" : "lines+markers", y: points.y.map(value => scale * value), meta: series.number,
        name: escaped(series.name), line: {color, dash: dashOf(series), width: 2}, marker: {symbol: symbolOf(series), size: 6, color},
        hoverinfo: "text", text: points.x.map((x, place) => pointText(series, view, y, points, place, scale)),
      });
    }
    return traces;
  }
  function costText(axis, x) {
    if (axis === "seconds") return Figures.secondsText(x);
    return axis === "up" || axis === "total" ? Figures.bytesText(x) : `${+x.toPrecision(4)} ${axis}`;
  }
  const number = value => String(+value.toPrecision(4));
  function pointText(series, view, y, points, place, scale) {
    const [value, low, high] = [points.y, points.low, points.high].map(list => number(scale * list[place]));
    const seeds = points.seeds[place], band = seeds > 1 ? ` (${low} to ${high}, ${seeds} seeds)` : "";
    return `${escaped(series.name)}<br>${escaped(y)}: ${value}${band}<br>${costText(view.axis, points.x[place])}, ` +
      `round ${points.rounds[place].toLocaleString("en")}`;
  }
  const bySize = axis => axis === "up" || axis === "total";
  function costAxis(view, traces) {
    const axis = {title: AXES[view.axis], ...(view.logX && logarithmic(traces, "x"))};
    if (bySize(view.axis)) Object.assign(axis, {exponentformat: "SI", ticksuffix: "B"});
    if (view.axis === "seconds") Object.assign(axis, {exponentformat: "SI", ticksuffix: "s", title: "time on the chosen network"});
    if (!view.logX) axis.rangemode = "tozero";
    return axis;
  }

  const metricAxis = (data, traces) => data.metric.logarithmic ? logarithmic(traces, "y") : {};
  function metric(data, view) {
    const {words, percent} = data.metric, scale = percent ? 100 : 1, title = percent ? `${words} (%)` : words;
    const traces = lines(data, view, run => run.marks.metric, scale, words);
    const of = layout(costAxis(view, traces), {title, ...metricAxis(data, traces)});
    if (view.target !== null) of.shapes = [{type: "line", xref: "paper", x0: 0, x1: 1, y0: scale * view.target, y1: scale * view.target,
      line: {color: css("--faint"), width: 1, dash: "dot"}}];
    return {traces, layout: of};
  }
  function loss(data, view) {
    const traces = lines(data, view, run => run.marks.train_loss, 1, "training loss");
    return {traces, layout: layout(costAxis(view, traces), {title: "training loss", ...(view.logY && logarithmic(traces, "y"))})};
  }
  function picture(name) {
    const [title, read, scale] = PICTURES[name];
    return (data, view) => {
      const traces = lines(data, view, read, scale, title, SMOOTH);
      return {traces, layout: layout(costAxis(view, traces), {title, rangemode: "tozero"})};
    };
  }
  const pictures = data => Object.keys(PICTURES).filter(name =>
    data.series.some(series => series.runs.some(run => PICTURES[name][1](run).some(value => value !== null))));

  // The metric at the end against the bytes of the full run, and the line of those that no other beats in both.
  function front(data, view) {
    const {metric: {words, higher, percent}} = data, scale = percent ? 100 : 1, axis = view.axis === "up" ? "up" : "total";
    const points = data.series.filter(series => !view.hidden.has(series.number)).flatMap(series => {
      const found = Figures.result(series, data.metric, null, view.layout, view.network);
      const bytes = axis === "up" ? found.upBytes : found.totalBytes;
      return found.final && bytes ? [{series, x: bytes.mean, y: scale * found.final.mean, bytes, final: found.final}] : [];
    });
    const best = Figures.front(points, higher);
    const traces = points.map(({series, x, y, final}) => ({
      x: [x], y: [y], type: "scatter", mode: "markers", name: escaped(series.name), meta: series.number,
      marker: {color: colorOf(series), symbol: symbolOf(series), size: 11, line: {color: css("--page"), width: 1}},
      error_y: {type: "data", symmetric: false, array: [scale * final.highest - y], arrayminus: [y - scale * final.lowest],
        color: colorOf(series), thickness: 1.5, width: 4, visible: final.seeds > 1},
      hoverinfo: "text", text: [`${escaped(series.name)}<br>${escaped(words)}: ${number(y)} (${number(scale * final.lowest)} to ` +
        `${number(scale * final.highest)}, ${final.seeds} seed${final.seeds > 1 ? "s" : ""})<br>${Figures.bytesText(x)}`],
    }));
    traces.unshift({x: best.map(({x}) => x), y: best.map(({y}) => y), type: "scatter", mode: "lines", hoverinfo: "skip", meta: "front",
      line: {color: css("--faint"), width: 1.5, shape: higher ? "hv" : "vh", dash: "dot"}});
    return {traces, best: best.map(({series}) => series.name), layout: layout(
      {title: AXES[axis], ...logarithmic(points.length ? traces : [{x: [1]}], "x"), exponentformat: "SI", ticksuffix: "B"}, {title: `${words} at the end${percent ? " (%)" : ""}`, ...metricAxis(data, traces)})};
  }

  // How many examples of each class every worker has.
  function shares(data, view) {
    const {shares: counts} = data.partitions[view.partition], workers = counts.map((_, rank) => rank), nClasses = counts[0].length;
    const color = one => `hsl(${Math.round(360 * one / nClasses)} ${one % 2 ? 75 : 55}% ${one % 3 === 0 ? 42 : one % 3 === 1 ? 55 : 66}%)`;
    const traces = [...Array(nClasses).keys()].map(one => ({type: "bar", x: workers, y: counts.map(of => of[one]), name: `class ${one}`,
      meta: `class ${one}`, hoverinfo: "text", textposition: "none", marker: {color: color(one), line: {color: css("--page"), width: .5}},
      hovertext: counts.map((of, rank) => `worker ${rank}, ${nClasses > 1 ? `class ${one}` : "examples"}: ${of[one].toLocaleString("en")}`)}));
    const sizes = counts.map(of => of.reduce((sum, count) => sum + count, 0));
    const words = `${counts.length} workers with ${Math.min(...sizes).toLocaleString("en")} to ${Math.max(...sizes).toLocaleString("en")} examples`;
    return {traces, words: nClasses > 1 ? `${words}; a color for each of ${nClasses} classes` : words, layout: layout(
      {title: "worker", dtick: counts.length <= 40 ? 1 : undefined}, {title: "examples"},
      {barmode: "stack", bargap: .15, showlegend: nClasses > 1 && nClasses <= 12 && !isPhone()})};
  }

  // What each rank did in the round that is nearest to the chosen one of those that were recorded.
  const PHASES = [["computing", "#E69F00"], ["encoding", "#CC79A7"], ["sending, receiving, waiting", "#999999"],
    ["decoding, serving", "#009E73"], ["evaluating", "#56B4E9"]];
  const recordedRun = series => series?.runs.find(run => run.phases.length);
  function recorded(series, view) {
    const run = recordedRun(series), far = ([round]) => Math.abs(round - view.round);
    const [round, phases] = run.phases.reduce((one, other) => far(other) < far(one) ? other : one);
    const unit = unitOf(Math.max(...phases.map(([, , , end]) => end))), ranks = Math.max(...phases.map(([rank]) => rank)) + 1;
    const traces = PHASES.map(([words, color], kind) => {
      const own = phases.filter(phase => phase[1] === kind);
      return {type: "bar", orientation: "h", name: words, meta: words, hoverinfo: "text", textposition: "none",
        marker: {color, line: {color: css("--page"), width: 1}}, y: own.map(([rank]) => `rank ${rank}`),
        base: own.map(([, , start]) => start / unit[0]), x: own.map(([, , start, end]) => (end - start) / unit[0]),
        hovertext: own.map(([rank, , start, end]) => `rank ${rank}: ${words}<br>${number(start / unit[0])} to ${number(end / unit[0])} ${unit[1]}`)};
    }).filter(trace => trace.x.length);
    const lanes = [...Array(ranks).keys()].reverse().map(rank => `rank ${rank}`);
    return {traces, words: `${series.name}, seed ${run.seed}, round ${round} as it was on its machine`, layout: lanesLayout(lanes, unit)};
  }
  const unitOf = end => [[1, "s"], [1e-3, "ms"], [1e-6, "us"]].find(([size]) => end >= size) ?? [1e-9, "ns"];
  const lanesLayout = (lanes, unit) => layout({title: `time in the round (${unit[1]})`, rangemode: "tozero"},
    {title: "", type: "category", categoryorder: "array", categoryarray: lanes, nticks: lanes.length, tickfont: {size: 12}},
    {barmode: "overlay", height: 110 + 22 * lanes.length, bargap: .25, showlegend: true, legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0}});

  // Who sends and receives when, in one round of one run.
  function timeline(data, view) {
    if (view.recorded && recordedRun(data.series[view.line])) return recorded(data.series[view.line], view);
    const series = data.series[view.line], run = series && series.runs.find(one => one.marks.round.length);
    if (!series || !series.timing || !run) return {traces: [], layout: layout({title: ""}, {title: ""}), words: "this run cannot be timed"};
    const name = Figures.layoutOf(series, view.layout), shape = series.timing.shapes[name], {marks} = run;
    const mark = Math.max(0, marks.round.findIndex(round => round > view.round)), from = mark ? marks.round[mark - 1] : 0;
    const n = marks.round[mark] - from, dense = marks.dense[mark] && shape.dense.length;
    const [up, down] = [marks.up, marks.down].map(bytes => (bytes[mark] - (mark ? bytes[mark - 1] : 0)) / n);
    const compute = view.network.compute ?? run.compute ?? 0, own = compute * shape.gradients * shape.localSteps;
    const of = n > 1 ? `the mean of rounds ${from} to ${marks.round[mark] - 1}` : `round ${from}`;
    const size = `${Figures.bytesText(up)} up, ${Figures.bytesText(down)} down`;
    if (shape.bound) return {traces: [], layout: layout({title: ""}, {title: ""}), words:
      `${series.name} has no rounds: its server takes each gradient as it comes. laconic timeline async-server draws one.`};
    const messages = Clock.roundMessages(shape, dense ? shape.dense : shape.exchanges, up, down, view.network, compute);
    const end = messages.reduce((last, one) => Math.max(last, one.end), own);
    const words = `${series.name}, ${name}, seed ${run.seed}, ${of}: ${size}, ${Figures.secondsText(end)}`;
    const n_nodes = Math.min(shape.nodes, MOST_NODES), unit = unitOf(end);
    const label = (node, lane) => `${node < shape.workers ? `worker ${node}` : "server"} ${lane}`;
    const bars = Object.fromEntries(Object.keys(KINDS).map(kind => [kind, {x: [], y: [], base: [], text: []}]));
    const add = (kind, node, start, over, text) => {
      if (node >= n_nodes) return;
      const bar = bars[kind];
      bar.y.push(label(node, kind === "receive" ? "receives" : "sends"));
      bar.base.push(start / unit[0]);
      bar.x.push((over - start) / unit[0]);
      bar.text.push(`${KINDS[kind][0]}${text}<br>${number(start / unit[0])} to ${number(over / unit[0])} ${unit[1]}`);
    };
    if (own) for (let node = 0; node < shape.workers; node++) add("compute", node, 0, own, "");
    for (const one of messages.slice(0, MOST_MESSAGES)) {
      add("send", one.sender, one.start, one.end, ` to ${label(one.receiver, "")}, ${Figures.bytesText(one.bytes)} (${escaped(one.exchange)})`);
      add("receive", one.receiver, one.start, one.end, ` from ${label(one.sender, "")}, ${Figures.bytesText(one.bytes)} (${escaped(one.exchange)})`);
    }
    const traces = Object.entries(bars).filter(([, bar]) => bar.x.length).map(([kind, bar]) => ({
      ...bar, type: "bar", orientation: "h", name: KINDS[kind][0], hoverinfo: "text", textposition: "none", meta: kind,
      hovertext: bar.text, marker: {color: KINDS[kind][1], line: {color: css("--page"), width: 1},
        pattern: {shape: KINDS[kind][2], bgcolor: KINDS[kind][1], fgcolor: "#004b75", size: 5, solidity: .25}},
    }));
    const lanes = [];
    for (let node = n_nodes - 1; node >= 0; node--) lanes.push(label(node, "receives"), label(node, "sends"));
    const over = shape.nodes > MOST_NODES || messages.length > MOST_MESSAGES;
    return {traces, words: over ? `${words}; only the first ${n_nodes} nodes and ${MOST_MESSAGES} messages are drawn` : words,
      layout: lanesLayout(lanes, unit)};
  }
  return {AXES, PICTURES, recordedRun, shares, metric, loss, front, picture, pictures, timeline, colorOf, dashOf, symbolOf, costText, number};
})();
