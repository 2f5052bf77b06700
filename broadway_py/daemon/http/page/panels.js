// The parts of a pipeline below its stages: the load of each processor, failures, outcomes, settings. And the workers.

import { h } from "./dom.js";
import { term } from "./explanations.js";
import { ago, count, percent, sum, tally } from "./figures.js";

// --- the load of each processor

function loadRow(shares, label, first) {
  const mean = shares.length ? sum(shares) / shares.length : 0;
  const busiest = shares.indexOf(Math.max(...shares));
  const said = shares.length === 1 ? percent(mean) : `${percent(mean)} on average, at most ${percent(shares[busiest])}, number ${busiest}`;
  return h("div", { key: label, class: "load" },
    h("span", { class: "of" }, label),
    h("div", { class: "cells", role: "img", "aria-label": `${label}: ${shares.length} processors busy, ${said}` },
      shares.map((share, i) => h("span", { key: i, class: "cell", title: `processor ${first + i}: ${percent(share)}` },
        h("i", { style: { height: `${Math.round(100 * Math.min(1, share))}%` } })))),
    h("span", { class: "share" }, `${percent(mean)} busy`));
}

export function load(pipeline, workers) {
  const shares = pipeline.processors_busy ?? [];
  if (!shares.length) return null;
  const ofWorkers = (workers ?? []).filter((one) => one.processors_busy[pipeline.name]?.length);
  return h("div", { key: "load", class: "panel" }, h("h3", {}, term("processors", "Load of each processor")),
    ofWorkers.length > 1
      ? ofWorkers.map((one) => loadRow(one.processors_busy[pipeline.name], `worker ${one.index}`, 0))
      : loadRow(shares, `${shares.length} ${shares.length === 1 ? "processor" : "processors"}`, 0));
}

function titles(...columns) {
  return columns.map(([title, kind]) => h("th", { key: title, scope: "col", class: kind || null }, title));
}

// --- failures

export function failures(pipeline, now) {
  const kinds = pipeline.failures ?? [];
  if (!kinds.length) return null;
  return h("div", { key: "failures", class: "panel" }, h("h3", {}, term("failures", "Last failures")),
    h("div", { class: "scrolled", role: "region", "aria-label": `Last failures of ${pipeline.name}`, tabindex: "0" },
      h("table", {},
        h("thead", {}, h("tr", {}, titles(["Error", ""], ["Where", ""], ["Count", "number"], ["Last", "time"], ["What happens next", ""]))),
        h("tbody", {}, kinds.map((one) => h("tr", { key: `${one.stage} ${one.cause} ${one.type} ${one.becomes}` },
          h("th", { scope: "row" }, one.type || one.cause, one.type ? h("small", {}, ` ${one.cause}`) : null),
          h("td", { class: "place" }, one.stage, one.place ? h("small", {}, one.place) : null),
          h("td", { class: "number" }, count(one.count)),
          h("td", { class: "time" }, ago(Math.max(0, now - one.last))),
          h("td", {}, one.next ?? "–")))))));
}

// --- outcomes

const BAD = new Set(["rejected", "dead_lettered", "dropped", "unknown"]);

export function outcomes(pipeline) {
  const shown = Object.entries(tally(pipeline)).filter(([outcome, number]) => number || outcome === "acked");
  const fact = (label, number, bad) => h("span", { key: label, class: bad ? "bad" : null }, `${label} `, h("b", {}, count(number)));
  return h("div", { key: "outcomes", class: "outcomes" },
    h("span", { key: "outcomes" }, "outcomes"),
    shown.map(([outcome, number]) => fact(outcome.replace("_", " "), number, BAD.has(outcome) && number > 0)),
    pipeline.restarts ? fact("stage restarts", pipeline.restarts, true) : null,
    pipeline.stuck_handlers ? fact("stuck handlers", pipeline.stuck_handlers, true) : null,
    owners(pipeline.owners));
}

// Says which worker owns which partitions, if the sources of the pipeline are parted.
function owners(byWorker) {
  const workers = Object.entries(byWorker ?? {});
  return workers.map(([worker, owned]) => h("span", { key: `worker ${worker}` },
    workers.length > 1 ? `partitions of worker ${worker} ` : "partitions ", h("b", {}, owned.join(", "))));
}

// --- settings

function flat(value, path = "") {
  const isSection = value !== null && typeof value === "object" && Object.keys(value).length > 0;
  if (!isSection) return [[path, value === null ? "null" : typeof value === "object" ? (Array.isArray(value) ? "[]" : "{}") : String(value)]];
  if (Array.isArray(value) && value.every((one) => one === null || typeof one !== "object")) return [[path, `[${value.join(", ")}]`]];
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
}

// Returns closed details with all settings. `open` is called when somebody opens them.
export function settings(name, values, open) {
  return h("details", { key: "settings", class: "panel", ontoggle: (event) => { if (event.currentTarget.open) open(); } },
    h("summary", {}, name),
    values ? h("table", { class: "settings" },
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), h("th", { scope: "col" }, "Value"))),
      h("tbody", {}, flat(values).map(([path, value]) => h("tr", { key: path }, h("th", { scope: "row" }, path), h("td", {}, value)))))
      : h("p", {}, "Loading …"));
}

// --- workers

export function workersPanel(workers, now) {
  return h("section", { key: "workers", class: "card", "aria-labelledby": "workers-title" },
    h("h2", { id: "workers-title" }, term("workers", "Workers")),
    h("div", { class: "scrolled", role: "region", "aria-label": "Workers", tabindex: "0" },
      h("table", {},
        h("thead", {}, h("tr", {}, titles(["Worker", ""], ["State", ""], ["Process", "number"], ["Since", "time"], ["Restarts", "number"], ["Processors", ""]))),
        h("tbody", {}, workers.map((one) => {
          const shares = Object.values(one.processors_busy).flat();
          const isGood = one.state === "running" || one.state === "ended";
          return h("tr", { key: one.index },
            h("th", { scope: "row" }, String(one.index)),
            h("td", {}, h("span", { class: `badge ${isGood ? "good" : one.state === "starting" ? "warn" : "bad"}` }, one.state),
              one.reason ? h("small", {}, ` ${one.reason}`) : null),
            h("td", { class: "number" }, one.pid ?? "–"),
            h("td", { class: "time" }, ago(Math.max(0, now - one.since))),
            h("td", { class: "number" }, count(one.restarts)),
            h("td", {}, shares.length ? `${percent(sum(shares) / shares.length)} busy` : "–"));
        })))));
}
