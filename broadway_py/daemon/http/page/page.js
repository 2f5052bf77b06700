"use strict";

// The rates come from two snapshots, three seconds apart. The server only sends the current state.
const EVERY_MS = 1000;
const RATE_OVER = 3;
const HISTORY = 90;
const before = new Map();
const history = new Map();

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

function rate(value) {
  if (value === null) return "–";
  return value >= 100 ? number.format(value) : value.toFixed(value >= 10 || value === 0 ? 0 : 1);
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) { value /= 1024; step += 1; }
  return `${value >= 10 || step === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[step]}`;
}

function seconds(value) {
  if (value === null) return "–";
  if (value === 0) return "0";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return `${(value / 60).toFixed(0)} min`;
}

// Returns which worker owns which partitions, or null if the sources of the pipeline are not parted.
function owners(byWorker) {
  if (!byWorker) return null;
  const workers = Object.entries(byWorker);
  const told = workers.map(([worker, owned]) => fact(workers.length > 1 ? `worker ${worker}` : "owned", owned.join(", ")));
  return node("div", { class: "owners" }, node("span", {}, "partitions"), ...told);
}

// Returns the mean of the values observed between two snapshots of a distribution.
function meanSince(now, then) {
  if (!now) return null;
  const count = sum(now.counts) - (then ? sum(then.counts) : 0);
  const total = now.total - (then ? then.total : 0);
  return count > 0 ? total / count : null;
}

// Returns an upper bound for the given part of the values observed between two snapshots.
function quantileSince(now, then, part) {
  const counts = now.counts.map((count, i) => count - (then ? then.counts[i] : 0));
  const wanted = sum(counts) * part;
  if (wanted <= 0) return null;
  let seen = 0;
  for (let i = 0; i < counts.length; i += 1) {
    seen += counts[i];
    if (seen >= wanted) return i < now.bounds.length ? now.bounds[i] : Infinity;
  }
  return Infinity;
}

function byName(list, name) {
  return list ? list.find((one) => one.name === name) : undefined;
}

function perSecond(now, then, elapsed) {
  return then === undefined || elapsed <= 0 ? null : Math.max(0, now - then) / elapsed;
}

function bar(label, part, pressure) {
  const percent = part === null ? 0 : Math.round(100 * Math.min(1, part));
  const fill = node("i");
  fill.style.width = `${percent}%`;
  return [
    node("span", {}, label),
    node("div", { class: pressure ? "bar pressure" : "bar" }, fill),
    node("output", {}, part === null ? "–" : `${percent} %`),
  ];
}

function fact(label, value, bad) {
  return node("span", {}, `${label} `, node("b", bad ? { class: "bad" } : {}, String(value)));
}

function stageCard({ kind, name, side, perSecond: value, unit, facts, rows, bars, state }) {
  return node("div", { class: `stage ${state || ""}` },
    node("div", { class: "kind" }, kind, side ? node("span", {}, side) : ""),
    name ? node("div", { class: "name" }, name) : "",
    value === undefined ? "" : node("div", { class: "rate" }, rate(value), node("small", {}, ` ${unit}`)),
    node("div", { class: "facts" }, ...facts),
    rows ? table(rows) : "",
    bars && bars.length ? node("div", { class: "bars" }, ...bars.flat()) : "");
}

function producerCard(producer, then, elapsed) {
  const down = !producer.ended && producer.connected < producer.copies;
  const facts = [fact("in flight", number.format(producer.in_flight))];
  if (producer.redelivered) facts.push(fact("redelivered", number.format(producer.redelivered)));
  if (producer.connections_lost) facts.push(fact("lost", producer.connections_lost, true));
  if (producer.ended) facts.push(node("span", {}, "ended"));
  return stageCard({
    kind: "producer", name: producer.name, state: down ? "bad" : "",
    side: producer.copies ? `${producer.connected}/${producer.copies} up` : "",
    perSecond: perSecond(producer.received, then && then.received, elapsed), unit: "msg/s in", facts,
  });
}

function shares(stage, then, elapsed) {
  const slots = Math.max(1, stage.concurrency);
  const busy = perSecond(stage.busy_seconds, then && then.busy_seconds, elapsed);
  const waits = perSecond(stage.backpressure_seconds, then && then.backpressure_seconds, elapsed);
  return { busy: busy === null ? null : busy / slots, waits: waits === null ? null : waits / slots };
}

function layerCard(stage, then, elapsed, value, extra) {
  const { busy, waits } = shares(stage, then, elapsed);
  const failed = sum(Object.values(stage.failed));
  const facts = [fact("queued", number.format(stage.queued)), ...extra];
  if (failed) facts.push(fact("failed", number.format(failed), true));
  const isBatcher = stage.name.startsWith("batcher:");
  const bars = [];
  if (!isBatcher) bars.push(bar("busy", busy, false));
  if (!stage.name.startsWith("batch_processors:")) bars.push(bar("held back", waits, true));
  const kinds = { processors: "processors", batcher: "batcher", batch_processors: "batch processors" };
  const [kind, name] = stage.name.split(/:(.*)/s);
  return stageCard({
    kind: kinds[kind] || kind, name, side: `×${stage.concurrency}`, perSecond: value, unit: "msg/s",
    state: waits > 0.5 && !isBatcher ? "warn" : "", facts, bars,
  });
}

// Each row is a label, a text, and whether it is bad.
function table(rows) {
  return node("dl", { class: "rows" }, ...rows.flatMap(([label, text, bad]) =>
    [node("dt", {}, label), node("dd", bad ? { class: "bad" } : {}, String(text))]));
}

function behind(lag) {
  if (lag === null) return "not known yet";
  return lag < 0 ? `${seconds(-lag)} ahead` : `${seconds(lag)} behind`;
}

const HOLDERS = { in_work: "work", retry: "retries", reconnect: "connection", source: "source" };
const LATE = { event_time: "late", held: "late, as held too long" };

function holderRows(held) {
  const active = Object.entries(held).filter(([, since]) => since > 0).sort((a, b) => b[1] - a[1]);
  return active.length ? active.map(([by, since]) => [`held by ${HOLDERS[by] || by}`, seconds(since)]) : [["held by", "nothing"]];
}

function lateRows(late) {
  const some = Object.entries(late).filter(([, count]) => count);
  return some.length ? some.map(([why, count]) => [LATE[why] || why, number.format(count), true]) : [["late", "0"]];
}

const ADDED = ["windows_open", "results_pending", "results_failing", "held", "checkpoints", "checkpoint_failures", "emit_failures",
  "duplicates", "state_bytes"];

function addCounts(a, b) {
  const total = { ...a };
  for (const [name, count] of Object.entries(b)) total[name] = (total[name] || 0) + count;
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
    counts: a.checkpoint_duration.counts.map((count, i) => count + b.checkpoint_duration.counts[i]),
    total: a.checkpoint_duration.total + b.checkpoint_duration.total };
  return one;
}

function aggregatorsOf(pipeline) {
  const known = new Map();
  for (const one of pipeline?.aggregators ?? []) {
    const before = known.get(one.name);
    known.set(one.name, before ? together(before, one) : { ...one, partitions: 1 });
  }
  return [...known.values()];
}

function aggregatorCard(one, then, elapsed) {
  const inTime = Object.keys(one.watermark_held_seconds).length > 0;
  const took = meanSince(one.checkpoint_duration, then?.checkpoint_duration);
  const rows = [];
  if (inTime) {
    rows.push(["watermark", behind(one.watermark_lag_seconds)], ...holderRows(one.watermark_held_seconds));
  }
  rows.push(["open windows", number.format(one.windows_open)],
    ["not stored yet", number.format(one.held)],
    ["checkpoints", number.format(one.checkpoints)],
    ["last one", one.checkpoints ? `${seconds(one.checkpoint_age_seconds)} ago` : "–"]);
  if (took !== null) rows.push(["takes", seconds(took)]);
  if (one.checkpoint_failures) rows.push(["failed", number.format(one.checkpoint_failures), true]);
  if (inTime) rows.push(...lateRows(one.late));
  if (one.duplicates) rows.push(["repeats", number.format(one.duplicates)]);
  if (one.state_bytes) rows.push(["state", bytes(one.state_bytes)]);
  const results = sum(Object.values(one.results));
  return stageCard({
    kind: "aggregator", name: one.name, rows, side: one.partitions > 1 ? `${one.partitions} partitions` : "",
    perSecond: perSecond(results, then && sum(Object.values(then.results)), elapsed), unit: "results/s", facts: [],
  });
}

function emitterCard(one, stage, then, elapsed) {
  const { busy } = shares(stage, then, elapsed);
  const facts = [fact("pending", number.format(one.results_pending))];
  if (one.results_failing) facts.push(fact("failing", number.format(one.results_failing), true));
  if (one.emit_failures) facts.push(fact("failed calls", number.format(one.emit_failures), true));
  return stageCard({ kind: "results", name: one.name, facts, bars: [bar("busy", busy, false)] });
}

function graph(pipeline, then, elapsed) {
  const old = (stage) => byName(then && then.stages, stage.name);
  const starts = (prefix) => pipeline.stages.filter((stage) => stage.name.startsWith(prefix));
  const received = sum(pipeline.producers.map((one) => one.received));
  const oldReceived = then ? sum(then.producers.map((one) => one.received)) : undefined;
  const columns = [
    pipeline.producers.filter((one) => one.copies > 0 || one.received > 0)
      .map((one) => producerCard(one, byName(then && then.producers, one.name), elapsed)),
    starts("processors").map((stage) => layerCard(stage, old(stage), elapsed,
      perSecond(received, oldReceived, elapsed), [fact("chunk", seconds(meanSince(stage.duration, old(stage)?.duration)))])),
  ];
  const batchers = starts("batcher:").map((stage) => {
    const size = meanSince(stage.batch_sizes, old(stage)?.batch_sizes);
    return layerCard(stage, old(stage), elapsed,
      perSecond(stage.batch_sizes?.total ?? 0, old(stage)?.batch_sizes?.total, elapsed),
      [fact("batch of", size === null ? "–" : size.toFixed(size < 10 ? 1 : 0))]);
  });
  const batchProcessors = starts("batch_processors:").map((stage) => {
    const handled = stage.duration ? sum(stage.duration.counts) : 0;
    const oldHandled = old(stage)?.duration ? sum(old(stage).duration.counts) : undefined;
    const batches = perSecond(handled, oldHandled, elapsed);
    return layerCard(stage, old(stage), elapsed, undefined,
      [fact("batches/s", rate(batches)), fact("takes", seconds(meanSince(stage.duration, old(stage)?.duration)))]);
  });
  const aggregators = aggregatorsOf(pipeline);
  const formerly = aggregatorsOf(then);
  const emitters = aggregators.map((one) => {
    const stage = byName(pipeline.stages, `emitter:${one.name}`);
    return emitterCard(one, stage, old(stage), elapsed);
  });
  if (batchers.length || aggregators.length) {
    const windows = aggregators.map((one) => aggregatorCard(one, byName(formerly, one.name), elapsed));
    columns.push([...batchers, ...windows], [...batchProcessors, ...emitters]);
  }
  const grid = node("div", { class: "graph" }, ...columns.map((cards) => node("div", { class: "column" }, ...cards)));
  grid.style.setProperty("--columns", columns.length);
  return grid;
}

function sparkline(values) {
  const most = Math.max(1, ...values);
  const step = 300 / (HISTORY - 1);
  const left = 300 - step * (values.length - 1);
  const points = values.map((value, i) => `${(left + i * step).toFixed(1)} ${(37 - 34 * value / most).toFixed(1)}`);
  const space = "http://www.w3.org/2000/svg";
  const drawing = document.createElementNS(space, "svg");
  for (const [name, value] of [["class", "spark"], ["viewBox", "0 0 300 38"], ["preserveAspectRatio", "none"], ["role", "img"],
    ["aria-label", `settled per second, the last ${values.length} seconds, at most ${rate(most)}`]]) drawing.setAttribute(name, value);
  if (points.length > 1) {
    for (const [kind, d] of [["area", `M${left} 38 L${points.join(" L")} L300 38 Z`], ["line", `M${points.join(" L")}`]]) {
      const path = document.createElementNS(space, "path");
      path.setAttribute("class", kind);
      path.setAttribute("d", d);
      drawing.append(path);
    }
  }
  return drawing;
}

function tally(pipeline) {
  const total = {};
  for (const producer of pipeline.producers) {
    for (const [outcome, count] of Object.entries(producer.outcomes)) total[outcome] = (total[outcome] || 0) + count;
  }
  return total;
}

const BAD = new Set(["rejected", "dead_lettered", "dropped", "unknown"]);
const TONE = { running: "good", paused: "warn", draining: "warn", starting: "warn", crashed: "bad" };

function bigNumber(label, value, note) {
  return node("div", {}, node("dt", {}, label), node("dd", {}, value, note ? node("small", {}, ` ${note}`) : ""));
}

async function act(name, what, button) {
  button.disabled = true;
  await fetch(`api/pipelines/${encodeURIComponent(name)}/${what}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: "{}",
  }).catch(() => {});
  await update();
}

function card(pipeline, then, elapsed) {
  const outcomes = tally(pipeline);
  const settled = sum(Object.values(outcomes));
  const settledRate = perSecond(settled, then ? sum(Object.values(tally(then))) : undefined, elapsed);
  const past = history.get(pipeline.name) || [];
  if (settledRate !== null) past.push(settledRate);
  history.set(pipeline.name, past.slice(-HISTORY));
  const main = pipeline.producers.reduce((a, b) => (sum(b.latency.counts) > sum(a.latency.counts) ? b : a));
  const latency = quantileSince(main.latency, byName(then && then.producers, main.name)?.latency, 0.95);
  const inFlight = sum(pipeline.producers.map((one) => one.in_flight));
  const oldest = Math.max(...pipeline.producers.map((one) => one.oldest_in_flight_seconds));
  const ready = pipeline.reasons.length === 0;
  const paused = pipeline.state === "paused";
  const mayAct = paused || pipeline.state === "running";
  const button = node("button", { type: "button", disabled: mayAct ? null : "" }, paused ? "Resume" : "Pause");
  button.addEventListener("click", () => act(pipeline.name, paused ? "resume" : "pause", button));
  const trouble = pipeline.breaker_open ? "degraded" : "not ready";
  const state = ready || pipeline.state !== "running" ? pipeline.state : trouble;
  const shown = Object.entries(outcomes).filter(([outcome, count]) => count || outcome === "acked");
  return node("section", { class: "pipeline", "data-pipeline": pipeline.name },
    node("div", { class: "title" }, node("h2", {}, pipeline.name),
      node("span", { class: `badge ${state === trouble ? "bad" : TONE[state] || ""}` }, state), button),
    owners(pipeline.owners),
    ready || paused ? "" : node("ul", { class: "troubles" }, ...pipeline.reasons.map((why) => node("li", {}, why))),
    node("dl", { class: "numbers" },
      bigNumber("settled", rate(settledRate), "msg/s"),
      bigNumber("in flight", number.format(inFlight), bytes(sum(pipeline.producers.map((one) => one.bytes_in_flight)))),
      bigNumber("oldest in flight", seconds(oldest)),
      bigNumber("latency, 95 % within", latency === Infinity ? "long" : seconds(latency)),
      bigNumber("settled in all", number.format(settled))),
    graph(pipeline, then, elapsed),
    sparkline(history.get(pipeline.name)),
    node("div", { class: "outcomes" }, ...shown.map(([outcome, count]) =>
      node("span", { class: BAD.has(outcome) && count ? "bad" : "" }, `${outcome.replace("_", " ")} `, node("b", {}, number.format(count)))),
      pipeline.restarts ? node("span", { class: "bad" }, "stage restarts ", node("b", {}, pipeline.restarts)) : "",
      pipeline.stuck_handlers ? node("span", { class: "bad" }, "stuck handlers ", node("b", {}, pipeline.stuck_handlers)) : ""));
}

async function update() {
  const status = document.getElementById("status");
  try {
    const answer = await fetch("api/pipelines", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    const { version, pipelines } = await answer.json();
    const now = performance.now() / 1000;
    const held = document.activeElement?.closest?.("section")?.dataset.pipeline;
    document.getElementById("pipelines").replaceChildren(...pipelines.map((pipeline) => {
      const past = before.get(pipeline.name) || [];
      const made = card(pipeline, past[0]?.pipeline, past.length ? now - past[0].at : 0);
      before.set(pipeline.name, [...past, { pipeline, at: now }].slice(-RATE_OVER));
      return made;
    }));
    if (held) document.querySelector(`[data-pipeline="${CSS.escape(held)}"] button`)?.focus();
    const notReady = pipelines.filter((one) => one.reasons.length).length;
    status.textContent = notReady ? `${notReady} of ${pipelines.length} not ready` : `${pipelines.length} ${pipelines.length === 1 ? "pipeline" : "pipelines"}, all ready`;
    status.className = notReady ? "lost" : "";
    document.title = notReady ? "not ready · Broadway" : "Broadway";
    document.getElementById("footer").textContent = `broadway ${version} · rates over the last three seconds · updated ${new Date().toLocaleTimeString()}`;
  } catch {
    status.textContent = "no answer from the daemon; trying again";
    status.className = "lost";
  }
}

async function follow() {
  if (!document.hidden) await update();
  setTimeout(follow, EVERY_MS);
}

follow();
