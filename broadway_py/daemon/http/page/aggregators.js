// The cards of aggregators: their windows, their watermark and what holds it, their results.

import { bar, fact, shares, stageCard } from "./cards.js";
import { bytes, count, meanSince, perSecond, seconds, sum } from "./figures.js";

const HOLDERS = { in_work: "work", retry: "retries", reconnect: "connection", source: "source" };
const LATE = { event_time: "late", held: "late, as held too long" };
const ADDED = ["windows_open", "results_pending", "results_failing", "held", "checkpoints", "checkpoint_failures", "emit_failures",
  "duplicates", "state_bytes"];

function behind(lag) {
  if (lag === null) return "not known yet";
  return lag < 0 ? `${seconds(-lag)} ahead` : `${seconds(lag)} behind`;
}

function holderRows(held) {
  const active = Object.entries(held).filter(([, since]) => since > 0).sort((a, b) => b[1] - a[1]);
  if (!active.length) return [["held_by", "held by", "nothing"]];
  return active.map(([by, since]) => ["held_by", `held by ${HOLDERS[by] || by}`, seconds(since)]);
}

function lateRows(late) {
  const some = Object.entries(late).filter(([, number]) => number);
  return some.length ? some.map(([why, number]) => ["late", LATE[why] || why, count(number), true]) : [["late", "late", "0"]];
}

function addCounts(a, b) {
  const total = { ...a };
  for (const [name, number] of Object.entries(b)) total[name] = (total[name] || 0) + number;
  return total;
}

function most(a, b) {
  return a === null || b === null ? a ?? b : Math.max(a, b);
}

// Adds up the partitions of an aggregator. Of times, the worst one counts.
function together(a, b) {
  const one = { ...a, partitions: a.partitions + 1 };
  for (const name of ADDED) one[name] = a[name] + b[name];
  for (const name of ["results", "late"]) one[name] = addCounts(a[name], b[name]);
  for (const name of ["watermark_lag_seconds", "checkpoint_age_seconds"]) one[name] = most(a[name], b[name]);
  one.watermark_held_seconds = Object.fromEntries(Object.entries(a.watermark_held_seconds)
    .map(([by, since]) => [by, most(since, b.watermark_held_seconds[by] ?? 0)]));
  one.checkpoint_duration = { ...a.checkpoint_duration,
    counts: a.checkpoint_duration.counts.map((number, i) => number + b.checkpoint_duration.counts[i]),
    total: a.checkpoint_duration.total + b.checkpoint_duration.total };
  return one;
}

export function aggregatorsOf(pipeline) {
  const known = new Map();
  for (const one of pipeline?.aggregators ?? []) {
    const before = known.get(one.name);
    known.set(one.name, before ? together(before, one) : { ...one, partitions: 1 });
  }
  return [...known.values()];
}

export function aggregatorCard(one, then, elapsed) {
  const inTime = Object.keys(one.watermark_held_seconds).length > 0;
  const took = meanSince(one.checkpoint_duration, then?.checkpoint_duration);
  const rows = [];
  if (inTime) {
    rows.push(["watermark", "watermark", behind(one.watermark_lag_seconds)], ...holderRows(one.watermark_held_seconds));
  }
  rows.push(["windows", "open windows", count(one.windows_open)],
    ["not_stored", "not stored yet", count(one.held)],
    ["checkpoints", "checkpoints", count(one.checkpoints)],
    [null, "last one", one.checkpoints ? `${seconds(one.checkpoint_age_seconds)} ago` : "–"]);
  if (took !== null) rows.push(["takes", "takes", seconds(took)]);
  if (one.checkpoint_failures) rows.push([null, "failed", count(one.checkpoint_failures), true]);
  if (inTime) rows.push(...lateRows(one.late));
  if (one.duplicates) rows.push([null, "repeats", count(one.duplicates)]);
  if (one.state_bytes) rows.push([null, "state", bytes(one.state_bytes)]);
  const results = sum(Object.values(one.results));
  return stageCard({
    kind: "aggregator", name: one.name, rows, side: one.partitions > 1 ? `${one.partitions} partitions` : "",
    perSecond: perSecond(results, then && sum(Object.values(then.results)), elapsed), unit: "results/s",
  });
}

export function emitterCard(one, stage, then, elapsed) {
  const { busy } = shares(stage, then, elapsed);
  const facts = [fact("pending", "pending", count(one.results_pending))];
  if (one.results_failing) facts.push(fact(null, "failing", count(one.results_failing), true));
  if (one.emit_failures) facts.push(fact(null, "failed calls", count(one.emit_failures), true));
  return stageCard({ kind: "results", name: one.name, facts, bars: bar("busy", "busy", busy, false) });
}
