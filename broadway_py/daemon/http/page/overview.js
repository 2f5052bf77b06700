// All pipelines in a table, with a filter if there are many. One of them is shown in full below, or all if they are few.

import { sparkline } from "./charts.js";
import { h } from "./dom.js";
import { term } from "./explanations.js";
import { count, inSources, rate, seconds, sum } from "./figures.js";

const FEW = 3;
const MANY = 6;
const TONE = { running: "good", paused: "warn", draining: "warn", starting: "warn", new: "warn", crashed: "bad" };

// The pipeline that is shown while nobody has chosen one.
let unasked = null;
const filter = { text: "", onlyTroubled: false };

// Returns the word for the state of a pipeline, and its tone.
export function stateOf(pipeline) {
  const isReady = pipeline.reasons.length === 0;
  if (isReady || pipeline.state !== "running") return { word: pipeline.state, tone: TONE[pipeline.state] || "" };
  return { word: pipeline.breaker_open ? "degraded" : "not ready", tone: "bad" };
}

export function badge(pipeline) {
  const { word, tone } = stateOf(pipeline);
  return h("span", { class: `badge ${tone}` }, word);
}

// Returns the pipelines that are shown in full: all if they are few, else the chosen one.
export function shownInFull(pipelines) {
  if (pipelines.length <= FEW) return pipelines;
  const wanted = chosen() ?? unasked;
  const found = pipelines.find((one) => one.name === wanted) ?? pipelines.find((one) => one.reasons.length) ?? pipelines[0];
  // It stays the same, whatever the others do.
  unasked = found.name;
  return [found];
}

function chosen() {
  const [, name] = location.hash.match(/^#pipeline=(.*)$/) ?? [];
  try {
    return name === undefined ? null : decodeURIComponent(name);
  } catch {
    return null;
  }
}

export function overview(pipelines, figures, histories, repaint) {
  if (pipelines.length <= 1) return null;
  const shown = pipelines.length < MANY ? pipelines : pipelines.filter(isWanted);
  const full = pipelines.length <= FEW ? null : shownInFull(pipelines)[0]?.name;
  return h("section", { key: "overview", class: "card", "aria-labelledby": "overview-title" },
    h("div", { class: "title" }, h("h2", { id: "overview-title" }, "Pipelines"),
      pipelines.length < MANY ? null : filters(shown.length, pipelines.length, repaint)),
    h("table", { class: "overview" },
      h("thead", {}, h("tr", {}, COLUMNS.map(([title, key, kind]) => h("th", { key: title, scope: "col", class: kind }, key ? term(key, title) : title)))),
      h("tbody", {}, shown.map((one) => row(one, figures.get(one.name), histories, one.name === full))),
    ),
    shown.length ? null : h("p", { key: "none" }, "No pipeline fits the filter."));
}

const COLUMNS = [
  ["Pipeline", null, ""], ["State", "state", ""], ["Settled/s", "settled_rate", "number"], ["Failed/s", "failed_rate", "number"],
  ["Waiting", "waiting", "number wide"], ["Dead", "dead", "number wide"], ["In flight", "in_flight", "number wide"],
  ["99 % within", "latency", "number wide"], ["30 minutes", null, "wide"],
];

function row(one, { settledRate, failedRate }, histories, isChosen) {
  const dead = inSources(one, "dead");
  return h("tr", { key: one.name, class: isChosen ? "chosen" : null },
    h("th", { scope: "row" }, h("a", { href: `#pipeline=${encodeURIComponent(one.name)}`, "aria-current": isChosen ? "true" : null }, one.name)),
    h("td", {}, badge(one)),
    h("td", { class: "number" }, rate(settledRate)),
    h("td", { class: failedRate > 0 ? "number bad" : "number" }, rate(failedRate)),
    h("td", { class: "number wide" }, count(inSources(one, "ready"))),
    h("td", { class: dead ? "number wide bad" : "number wide" }, count(dead)),
    h("td", { class: "number wide" }, count(sum(one.producers.map((producer) => producer.in_flight)))),
    h("td", { class: "number wide" }, seconds(histories.latest(one.name, "p99"))),
    h("td", { class: "wide" }, sparkline(histories.of(one.name))));
}

function isWanted(one) {
  const text = filter.text.trim().toLowerCase();
  const fits = !text || one.name.toLowerCase().includes(text) || stateOf(one).word.includes(text);
  return fits && (!filter.onlyTroubled || one.reasons.length > 0);
}

function filters(shown, all, repaint) {
  return h("div", { key: "filters", class: "filters", role: "search" },
    h("label", {}, "Find ", h("input", { type: "search", placeholder: "name or state",
      oninput: (event) => { filter.text = event.currentTarget.value; repaint(); } })),
    h("label", {}, h("input", { type: "checkbox",
      onchange: (event) => { filter.onlyTroubled = event.currentTarget.checked; repaint(); } }), " only with trouble"),
    h("span", { role: "status" }, shown === all ? `${all} pipelines` : `${shown} of ${all} pipelines`));
}
