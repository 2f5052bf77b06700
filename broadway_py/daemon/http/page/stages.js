// The stages of a pipeline as cards, from its sources to where it publishes.

import { aggregatorCard, aggregatorsOf, emitterCard } from "./aggregators.js";
import { bar, fact, shares, stageCard } from "./cards.js";
import { h } from "./dom.js";
import { byName, count, meanSince, perSecond, rate, seconds, sum } from "./figures.js";

function producerCard(producer, then, elapsed) {
  const isDown = !producer.ended && producer.connected < producer.copies;
  const source = producer.source;
  const facts = [];
  if (source && source.ready !== null) facts.push(fact("waiting", "waiting", count(source.ready)));
  if (source?.delayed) facts.push(fact("delayed", "delayed", count(source.delayed)));
  if (source && source.dead !== null) facts.push(fact("dead", "dead letters", count(source.dead), source.dead > 0));
  facts.push(fact("in_flight", "in flight", count(producer.in_flight)));
  if (producer.redelivered) facts.push(fact("redelivered", "redelivered", count(producer.redelivered)));
  if (producer.connections_lost) facts.push(fact("lost", "lost", count(producer.connections_lost), true));
  if (producer.ended) facts.push(h("span", { key: "ended" }, "ended"));
  const notes = [producer.trouble, source?.trouble ? `Its depth is not known: ${source.trouble}` : null].filter(Boolean);
  return stageCard({
    kind: "producer", name: producer.name, state: isDown ? "bad" : "", notes,
    side: producer.copies ? `${producer.connected}/${producer.copies} up` : "",
    perSecond: perSecond(producer.received, then?.received, elapsed), unit: "msg/s in", facts,
  });
}

function publisherCard(one, then, elapsed) {
  const facts = [fact(null, "waiting", count(one.waiting)), fact(null, "in flight", count(one.in_flight))];
  const took = meanSince(one.duration, then?.duration);
  if (took !== null) facts.push(fact("takes", "takes", seconds(took)));
  for (const outcome of ["refused", "unconfirmed"]) {
    if (one.published[outcome]) facts.push(fact(null, outcome, count(one.published[outcome]), true));
  }
  return stageCard({
    kind: "publisher", name: one.name, state: one.connected < one.copies ? "bad" : "", notes: one.trouble ? [one.trouble] : [],
    side: one.copies ? `${one.connected}/${one.copies} up` : "",
    perSecond: perSecond(one.published.confirmed ?? 0, then && (then.published.confirmed ?? 0), elapsed), unit: "msg/s out", facts,
  });
}

const KINDS = { processors: "processors", batcher: "batcher", batch_processors: "batch processors" };

function layerCard(stage, then, elapsed, value, extra) {
  const { busy, waits } = shares(stage, then, elapsed);
  const failed = sum(Object.values(stage.failed));
  const facts = [fact("queued", "queued", count(stage.queued)), ...extra];
  if (failed) facts.push(fact(null, "failed", count(failed), true));
  const [kind, name] = stage.name.split(/:(.*)/s);
  const bars = [];
  if (kind !== "batcher") bars.push(...bar("busy", "busy", busy, false));
  if (kind !== "batch_processors") bars.push(...bar("held_back", "held back", waits, true));
  return stageCard({
    kind: KINDS[kind] || kind, name, side: `×${stage.concurrency}`, perSecond: value, unit: "msg/s",
    state: waits > 0.5 && kind !== "batcher" ? "warn" : "", facts, bars,
  });
}

function processorsCard(pipeline, then, elapsed, stage, old) {
  const received = sum(pipeline.producers.map((one) => one.received));
  const before = then ? sum(then.producers.map((one) => one.received)) : undefined;
  return layerCard(stage, old, elapsed, perSecond(received, before, elapsed),
    [fact("chunk", "chunk", seconds(meanSince(stage.duration, old?.duration)))]);
}

function batcherCard(stage, old, elapsed) {
  const size = meanSince(stage.batch_sizes, old?.batch_sizes);
  return layerCard(stage, old, elapsed, perSecond(stage.batch_sizes?.total ?? 0, old?.batch_sizes?.total, elapsed),
    [fact("batch_of", "batch of", size === null ? "–" : size.toFixed(size < 10 ? 1 : 0))]);
}

function batchProcessorsCard(stage, old, elapsed) {
  const handled = stage.duration ? sum(stage.duration.counts) : 0;
  const batches = perSecond(handled, old?.duration ? sum(old.duration.counts) : undefined, elapsed);
  return layerCard(stage, old, elapsed, undefined,
    [fact(null, "batches/s", rate(batches)), fact("takes", "takes", seconds(meanSince(stage.duration, old?.duration)))]);
}

function graphOf(pipeline, then, elapsed) {
  const old = (stage) => byName(then?.stages, stage.name);
  const starts = (prefix) => pipeline.stages.filter((stage) => stage.name.startsWith(prefix));
  const aggregators = aggregatorsOf(pipeline);
  const formerly = aggregatorsOf(then);
  return [
    ["sources", pipeline.producers.filter((one) => one.copies > 0 || one.received > 0)
      .map((one) => producerCard(one, byName(then?.producers, one.name), elapsed))],
    ["processors", starts("processors").map((stage) => processorsCard(pipeline, then, elapsed, stage, old(stage)))],
    ["batchers", [
      ...starts("batcher:").map((stage) => batcherCard(stage, old(stage), elapsed)),
      ...aggregators.map((one) => aggregatorCard(one, byName(formerly, one.name), elapsed))]],
    ["batch processors", [
      ...starts("batch_processors:").map((stage) => batchProcessorsCard(stage, old(stage), elapsed)),
      ...aggregators.map((one) => {
        const stage = byName(pipeline.stages, `emitter:${one.name}`);
        return emitterCard(one, stage, old(stage), elapsed);
      })]],
    ["publishers", (pipeline.publishers ?? []).map((one) => publisherCard(one, byName(then?.publishers, one.name), elapsed))],
  ].filter(([, cards]) => cards.length);
}

export function graph(pipeline, then, elapsed) {
  const columns = graphOf(pipeline, then, elapsed);
  return h("div", { class: "graph", style: { "--columns": columns.length } },
    columns.map(([name, cards]) => h("ul", { key: name, class: "column", "aria-label": name }, cards)));
}
