"use strict";
// What is drawn, as numbers: costs of marks, means and bands over seeds, targets, fronts. Nothing here touches the page.
const Figures = (() => {
  const present = values => values.filter(value => value !== null && value !== undefined && Number.isFinite(value));
  const mean = values => values.reduce((sum, value) => sum + value, 0) / values.length;

  function estimate(values) {
    const found = present(values);
    if (!found.length) return null;
    const middle = mean(found), squares = found.reduce((sum, value) => sum + (value - middle) ** 2, 0);
    return {mean: middle, deviation: found.length > 1 ? Math.sqrt(squares / (found.length - 1)) : null,
      seeds: found.length, lowest: Math.min(...found), highest: Math.max(...found)};
  }

  // On which layout a series is timed: the chosen one if its method admits it, else its own.
  const layoutOf = (series, layout) => series.timing.shapes[layout] ? layout : series.timing.own;
  const computeOf = (series, run, network) => network.compute ?? run.compute ?? 0;

  // Seconds at each mark: rounds since the mark before are timed by their mean bytes. The last result is kept.
  const timed = new WeakMap();
  function seconds(series, run, layout, network) {
    const asked = JSON.stringify([layoutOf(series, layout), network]);
    if (timed.get(run)?.asked !== asked) timed.set(run, {asked, values: secondsOf(series, run, layout, network)});
    return timed.get(run).values;
  }
  function secondsOf(series, run, layout, network) {
    const {timing} = series, shape = timing.shapes[layoutOf(series, layout)], {marks} = run;
    const compute = computeOf(series, run, network);
    const regular = Clock.timer(shape, shape.exchanges, [timing.up, timing.down], network, compute);
    const dense = Clock.timer(shape, shape.dense, [0, 0], network, compute);
    let round = 0, up = 0, down = 0, total = 0;
    return marks.round.map((until, mark) => {
      const n = until - round, timer = marks.dense[mark] && shape.dense.length ? dense : regular;
      total += n * timer((marks.up[mark] - up) / n, (marks.down[mark] - down) / n);
      [round, up, down] = [until, marks.up[mark], marks.down[mark]];
      return total;
    });
  }

  // Seconds of the mean round, which is what `laconic plan` says of the run.
  function planned(series, run, layout, network) {
    const {timing} = series, shape = timing.shapes[layoutOf(series, layout)];
    return Clock.roundSeconds(shape, shape.exchanges, timing.up, timing.down, network, computeOf(series, run, network));
  }

  const COSTS = {
    rounds: run => run.marks.round,
    epochs: run => run.marks.epoch,
    up: run => run.marks.up,
    total: run => run.marks.up.map((bytes, mark) => bytes + run.marks.down[mark]),
  };

  // What each mark of a run has cost, in the unit of the axis; null if that is not known.
  function costs(series, run, axis, layout, network) {
    if (axis !== "seconds") return COSTS[axis](run);
    return series.timing ? seconds(series, run, layout, network) : null;
  }

  // The course over seeds: at each mark the mean cost, and mean, lowest and highest value of those that have it. With
  // `most`, means of so many marks in a row are one point that there are at most that many.
  function course(runs, values, most = Infinity) {
    const points = {x: [], y: [], low: [], high: [], rounds: [], seeds: []};
    const longest = Math.max(0, ...runs.map(({run}) => run.marks.round.length)), group = Math.ceil(longest / most) || 1;
    const value = (run, mark) => {
      const found = present(values(run).slice(mark + 1 - group, mark + 1));
      return found.length ? mean(found) : NaN;
    };
    for (let mark = group - 1; mark < longest; mark += group) {
      const here = runs.filter(({run, x}) => x && mark < x.length && Number.isFinite(value(run, mark)));
      if (!here.length) continue;
      const found = estimate(here.map(({run}) => value(run, mark)));
      points.x.push(mean(here.map(({x}) => x[mark])));
      points.y.push(found.mean);
      points.low.push(found.lowest);
      points.high.push(found.highest);
      points.rounds.push(here[0].run.marks.round[mark]);
      points.seeds.push(here.length);
    }
    return points;
  }

  const isReached = (metric, value, target) =>
    value !== null && value !== undefined && (metric.higher ? value >= target : value <= target);

  // The line of a series in the table: costs to the target over the seeds that have reached it.
  function result(series, metric, target, layout, network) {
    const runs = series.runs.filter(run => run.marks.round.length), values = run => run.marks.metric;
    const at = target === null ? [] : runs.map(run => [run, values(run).findIndex(value => isReached(metric, value, target))])
      .filter(([, mark]) => mark >= 0);
    const over = cost => estimate(at.map(([run, mark]) => cost(run)[mark]));
    const last = list => list[list.length - 1];
    return {
      seeds: runs.length, reached: at.length,
      final: estimate(runs.map(run => last(present(values(run))))),
      rounds: over(COSTS.rounds), up: over(COSTS.up), total: over(COSTS.total),
      seconds: series.timing ? over(run => seconds(series, run, layout, network)) : null,
      totalBytes: estimate(runs.map(run => last(COSTS.total(run)))),
      upBytes: estimate(runs.map(run => last(COSTS.up(run)))),
    };
  }

  // Those that no other is at most as dear as, and at least as good as.
  function front(points, higher) {
    const better = (one, other) => higher ? one > other : one < other;
    const found = [];
    for (const point of [...points].sort((one, other) => one.x - other.x || (better(one.y, other.y) ? -1 : 1)))
      if (!found.length || better(point.y, found[found.length - 1].y)) found.push(point);
    return found;
  }

  const digits = (value, unit) => `${value < 9.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0)} ${unit}`;
  function inLargest(value, units) {
    let [name, scale] = units[0];
    for (const [next, size] of units.slice(1)) {
      if (+(value / size).toPrecision(3) < 1) break;
      [name, scale] = [next, size];
    }
    return digits(value / scale, name);
  }
  const BYTES = [["B", 1], ["KB", 1e3], ["MB", 1e6], ["GB", 1e9], ["TB", 1e12], ["PB", 1e15]];
  const TIMES = [["ns", 1e-9], ["us", 1e-6], ["ms", 1e-3], ["s", 1], ["min", 60], ["h", 3600]];
  const BITS = [["bit", 1], ["Kbit", 1e3], ["Mbit", 1e6], ["Gbit", 1e9], ["Tbit", 1e12]];
  const bytesText = bytes => +bytes.toPrecision(3) < 1000 ? `${+bytes.toPrecision(3)} B` : inLargest(bytes, BYTES);
  const secondsText = time => time === 0 ? "0 s" : inLargest(time, TIMES);

  // Text to number, as laconic.units reads it; null if it is none.
  function bandwidth(text) {
    const found = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(b|bit|bits|B|byte|bytes)(?:\/s|\/sec|ps)?\s*$/i.exec(text);
    if (!found || !(+found[1] > 0)) return null;
    const bits = found[3] === "b" || /^bit/i.test(found[3]);
    return +found[1] * {"": 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12}[found[2].toLowerCase()] / (bits ? 8 : 1);
  }
  function duration(text) {
    if (/^\s*0\s*$/.test(text)) return 0;
    const found = /^\s*(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|µs|ms|s|min|h)\s*$/i.exec(text);
    return found ? +found[1] * {ns: 1e-9, us: 1e-6, "µs": 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600}[found[2].toLowerCase()] : null;
  }
  const short = (value, unit) => `${+value.toPrecision(3)}${unit}`;
  function bandwidthText(bytesPerSecond) {
    const [unit, scale] = BITS.filter(([, size]) => 8 * bytesPerSecond >= size).pop() ?? BITS[0];
    return short(8 * bytesPerSecond / scale, unit);
  }
  function durationText(time) {
    if (time === 0) return "0";
    const [unit, scale] = TIMES.slice(0, 4).filter(([, size]) => time >= size * 0.9999).pop() ?? TIMES[0];
    return short(time / scale, unit);
  }
  return {estimate, layoutOf, seconds, planned, costs, course, result, front, bytesText, secondsText,
    bandwidth, duration, bandwidthText, durationText};
})();
if (typeof module !== "undefined") module.exports = Figures;
