// The parts that the cards of all stages are made of.

import { h } from "./dom.js";
import { term } from "./explanations.js";
import { percent, perSecond, rate } from "./figures.js";

export function stageCard({ kind, name, side, perSecond: value, unit, facts = [], rows, bars = [], state, notes = [] }) {
  return h("li", { key: `${kind} ${name ?? ""}`, class: `stage ${state || ""}` },
    h("div", { class: "kind" }, h("span", {}, kind), side ? h("span", { class: "side" }, side) : null),
    name ? h("div", { class: "name" }, name) : null,
    value === undefined ? null : h("div", { class: "rate" }, rate(value), h("small", {}, ` ${unit}`)),
    facts.length ? h("div", { class: "facts" }, facts) : null,
    rows ? table(rows) : null,
    bars.length ? h("div", { class: "bars" }, bars) : null,
    notes.map((note) => h("p", { class: "note" }, note)));
}

export function fact(key, label, value, bad) {
  return h("span", { key: label }, key ? term(key, label) : label, " ", h("b", { class: bad ? "bad" : null }, String(value)));
}

export function bar(key, label, share, isPressure) {
  const width = `${share === null ? 0 : Math.round(100 * Math.min(1, share))}%`;
  return [
    h("span", { key: label }, term(key, label)),
    h("div", { key: `${label} bar`, class: isPressure ? "bar pressure" : "bar", "aria-hidden": "true" }, h("i", { style: { width } })),
    h("span", { key: `${label} share`, class: "share" }, percent(share)),
  ];
}

// Each row is the name of an explanation, a label, a text, and whether it is bad.
export function table(rows) {
  return h("dl", { class: "rows" }, rows.map(([key, label, text, bad]) =>
    h("div", { key: label }, h("dt", {}, key ? term(key, label) : label), h("dd", { class: bad ? "bad" : null }, String(text)))));
}

// Returns for which share of the time a stage was busy, and for which one the next stage took nothing.
export function shares(stage, then, elapsed) {
  const slots = Math.max(1, stage.concurrency);
  const busy = perSecond(stage.busy_seconds, then?.busy_seconds, elapsed);
  const waits = perSecond(stage.backpressure_seconds, then?.backpressure_seconds, elapsed);
  return { busy: busy === null ? null : busy / slots, waits: waits === null ? null : waits / slots };
}
