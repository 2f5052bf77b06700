// The last 30 minutes as charts, drawn by hand. A moment is read with the pointer or with the arrow keys.

import { h } from "./dom.js";
import { term } from "./explanations.js";
import { clock, count, rate, seconds } from "./figures.js";

const SPAN_S = 1800;
const LEAST_S = 120;
const WIDTH = 600;
const HEIGHT = 100;

// The points of each pipeline, as the daemon has told them so far.
export class Histories {
  #began = null;
  #points = new Map();
  #newest = 0;

  // The time of the newest point, for asking for those after it.
  get newest() {
    return this.#newest;
  }

  // Takes points in. Returns true if the daemon is another process than before: then all of its points must be asked for.
  add({ began, pipelines }) {
    if (began !== this.#began) {
      const isFirst = this.#began === null;
      this.#points.clear();
      this.#newest = 0;
      this.#began = began;
      if (!isFirst) return true;
    }
    for (const name of [...this.#points.keys()]) if (!(name in pipelines)) this.#points.delete(name);
    for (const [name, told] of Object.entries(pipelines)) {
      const kept = this.#points.get(name);
      const points = {};
      const newest = Math.max(kept?.time.at(-1) ?? 0, told.time.at(-1) ?? 0);
      const fresh = told.time.map((at) => !kept || at > (kept.time.at(-1) ?? 0));
      const old = (kept?.time ?? []).filter((at) => at < newest - SPAN_S).length;
      for (const [figure, values] of Object.entries(told)) {
        points[figure] = [...(kept?.[figure] ?? []).slice(old), ...values.filter((_, i) => fresh[i])];
      }
      this.#points.set(name, points);
      this.#newest = Math.max(this.#newest, newest);
    }
    return false;
  }

  of(name) {
    return this.#points.get(name) ?? { time: [], settled: [], failed: [], in_flight: [], p50: [], p99: [], depth: [] };
  }

  // Returns the newest value of a figure that is known.
  latest(name, figure) {
    return this.of(name)[figure].findLast((value) => value !== null) ?? null;
  }
}

const CHARTS = [
  { title: "Settled", unit: "msg/s", write: rate, lines: [["settled", "settled"]] },
  { title: "Failed", unit: "msg/s", write: rate, lines: [["failed", "failed"]], isBad: true },
  { title: "In flight", unit: "messages", write: count, lines: [["in_flight", "in flight"]] },
  { title: "Latency", unit: "", write: seconds, lines: [["p50", "half"], ["p99", "99 %"]] },
  { title: "Waiting", unit: "messages", write: count, lines: [["depth", "waiting"]], isOptional: true },
];

// The moment that is being read in each chart.
const read = new Map();

// Returns the charts of one pipeline. `repaint` is called when another moment is read.
export function charts(name, points, repaint) {
  const shown = CHARTS.filter((one) => !one.isOptional || points[one.lines[0][0]].some((value) => value !== null));
  return h("div", { class: "charts" }, shown.map((one) => chart(name, one, points, repaint)));
}

function chart(name, { title, unit, write, lines, isBad }, points, repaint) {
  const key = `${name} ${title}`;
  const times = points.time;
  const last = times.length - 1;
  const at = Math.min(read.get(key) ?? last, last);
  const isRead = read.has(key) && last >= 0;
  const most = Math.max(...lines.flatMap(([figure]) => points[figure].map((value) => value ?? 0)), 0);
  const top = most || 1;
  const end = times[last] ?? 0;
  const span = spanOf(times);
  const x = (i) => WIDTH * (1 - (end - times[i]) / span);
  const y = (value) => HEIGHT - 2 - (HEIGHT - 8) * (value / top);
  const values = lines.map(([figure, label]) => `${lines.length > 1 ? `${label} ` : ""}${write(points[figure][at] ?? null)} ${unit}`.trim());
  const said = values.join(", ");
  const when = last < 0 ? "no point yet" : isRead ? clock(times[at]) : "now";
  const choose = (i) => {
    if (i === null) read.delete(key);
    else read.set(key, Math.max(0, Math.min(last, i)));
    repaint();
  };
  return h("figure", { key: title, class: isBad ? "chart bad" : "chart" },
    h("figcaption", {}, h("b", {}, title), 
      h("span", { class: "said" }, values.map((value, i) => h("span", { key: i, class: lines.length > 1 ? `name-${i}` : null }, `${value} `)), isRead ? h("small", {}, when) : null)),
    h("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}, a point of the last 30 minutes`,
      "aria-valuemin": 0, "aria-valuemax": Math.max(0, last), "aria-valuenow": Math.max(0, at), "aria-valuetext": `${when}: ${said}`,
      onpointermove: (event) => choose(nearest(event, times, span)), onpointerleave: () => choose(null), onblur: () => choose(null),
      onkeydown: (event) => moveBy(event, at, last, choose),
    },
    h("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      h("path", { class: "grid", d: `M0 ${y(top)}H${WIDTH}M0 ${HEIGHT - 2}H${WIDTH}` }),
      lines.length === 1 ? h("path", { class: "area", d: area(points[lines[0][0]], x, y) }) : null,
      lines.map(([figure], i) => h("path", { key: figure, class: `line line-${i}`, d: line(points[figure], x, y) })),
      isRead ? h("path", { key: "read", class: "read", d: `M${x(at).toFixed(1)} 0V${HEIGHT}` }) : null),
    h("span", { class: "top", "aria-hidden": "true" }, most ? write(most) : "")),
    h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, `${seconds(span)} ago`), h("span", {}, "now")));
}

// Returns the seconds that a chart shows: fewer while the daemon is young.
function spanOf(times) {
  return Math.min(SPAN_S, Math.max(LEAST_S, (times.at(-1) ?? 0) - (times[0] ?? 0)));
}

function nearest(event, times, span) {
  const box = event.currentTarget.getBoundingClientRect();
  const wanted = times.at(-1) - span * (1 - (event.clientX - box.left) / box.width);
  let best = times.length - 1;
  times.forEach((at, i) => { if (Math.abs(at - wanted) < Math.abs(times[best] - wanted)) best = i; });
  return best;
}

function moveBy(event, at, last, choose) {
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -12, PageUp: 12, Home: -last, End: last };
  if (event.key === "Escape") choose(null);
  if (!(event.key in steps)) return;
  event.preventDefault();
  choose(at + steps[event.key]);
}

// Returns the runs of neighbouring points that have a value.
function runs(values) {
  const found = [[]];
  values.forEach((value, i) => {
    if (value === null) found.push([]);
    else found.at(-1).push(i);
  });
  return found.filter((run) => run.length);
}

function line(values, x, y) {
  return runs(values).map((run) => {
    const points = run.map((i) => `${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}`);
    return `M${points.join("L")}${points.length === 1 ? "h1" : ""}`;
  }).join("");
}

function area(values, x, y) {
  return runs(values).filter((run) => run.length > 1).map((run) => {
    const points = run.map((i) => `${x(i).toFixed(1)} ${y(values[i]).toFixed(1)}`);
    return `M${x(run[0]).toFixed(1)} ${HEIGHT}L${points.join("L")}L${x(run.at(-1)).toFixed(1)} ${HEIGHT}Z`;
  }).join("");
}

// Returns the rates of the last 30 minutes as a small drawing without a scale.
export function sparkline(points) {
  const values = points.settled;
  const times = points.time;
  const top = Math.max(...values.map((value) => value ?? 0), 0) || 1;
  const end = times.at(-1) ?? 0;
  const d = line(values, (i) => WIDTH * (1 - (end - times[i]) / spanOf(times)), (value) => HEIGHT - 4 - (HEIGHT - 10) * (value / top));
  return h("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    h("path", { class: "line", d }));
}

export function chartsHeading() {
  return h("h3", {}, term("history", "Last 30 minutes"));
}
