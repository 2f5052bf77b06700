// One pipeline in full.

import { charts, chartsHeading } from "./charts.js";
import { controls } from "./controls.js";
import { h } from "./dom.js";
import { term } from "./explanations.js";
import { bytes, count, inSources, rate, seconds, settledOf, sum } from "./figures.js";
import { badge } from "./overview.js";
import { failures, load, outcomes, settings } from "./panels.js";
import { graph } from "./stages.js";

// `page` has what the daemon has told besides the pipelines, and what the page does.
export function pipelineCard(pipeline, figures, page) {
  const { name } = pipeline;
  const id = `pipeline-${encodeURIComponent(name)}`;
  return h("section", { key: `pipeline ${name}`, class: "card pipeline", "data-pipeline": name, "aria-labelledby": id },
    h("div", { class: "title" }, h("h2", { id }, name), badge(pipeline), controls(pipeline, page)),
    troubles(pipeline),
    numbers(pipeline, figures, page.histories),
    graph(pipeline, figures.then, figures.elapsed),
    load(pipeline, page.workers),
    h("div", { key: "history", class: "panel" }, chartsHeading(), charts(name, page.histories.of(name), page.repaint)),
    failures(pipeline, page.now()),
    outcomes(pipeline),
    settings("Settings of this pipeline", page.settings?.pipelines[name], page.loadSettings));
}

const OPENED = /^(worker \d+.*: )?degraded: too many messages failed[^;]*; fetching has stopped until a probe succeeds$/;

function troubles(pipeline) {
  const { breaker } = pipeline;
  let reasons = pipeline.state === "paused" ? [] : pipeline.reasons;
  // The line about the breaker says more.
  if (breaker?.open) reasons = reasons.filter((why) => !OPENED.test(why));
  if (!reasons.length && !breaker?.open) return null;
  return h("ul", { key: "troubles", class: "troubles" },
    reasons.map((why) => h("li", { key: why }, why)),
    breaker?.open ? h("li", { key: "breaker" }, term("breaker", "The breaker is open."),
      breaker.reason ? ` It opened because messages failed: ${breaker.reason}.` : "",
      breaker.next_try_seconds === null ? "" : h("span", {}, ` ${nextTry(breaker.next_try_seconds)}`)) : null);
}

function nextTry(wait) {
  return wait < 0.5 ? "The next try is now." : `The next try is in ${Math.ceil(wait)} s.`;
}

function numbers(pipeline, { settledRate, failedRate }, histories) {
  const { producers } = pipeline;
  const half = histories.latest(pipeline.name, "p50");
  const most = histories.latest(pipeline.name, "p99");
  const waiting = inSources(pipeline, "ready");
  const dead = inSources(pipeline, "dead");
  return h("dl", { key: "numbers", class: "numbers" },
    bigNumber("settled_rate", "settled", rate(settledRate), "msg/s"),
    bigNumber("failed_rate", "failed", rate(failedRate), "msg/s", failedRate > 0),
    bigNumber("in_flight", "in flight", count(sum(producers.map((one) => one.in_flight))), bytes(sum(producers.map((one) => one.bytes_in_flight)))),
    waiting === null ? null : bigNumber("waiting", "waiting", count(waiting)),
    dead === null ? null : bigNumber("dead", "dead letters", count(dead), null, dead > 0),
    bigNumber("oldest", "oldest in flight", seconds(Math.max(0, ...producers.map((one) => one.oldest_in_flight_seconds)))),
    bigNumber("latency", "half within", seconds(half)),
    bigNumber("latency", "99 % within", seconds(most)),
    bigNumber("settled", "settled in all", count(settledOf(pipeline))));
}

function bigNumber(key, label, value, note, isBad) {
  return h("div", { key: label }, h("dt", {}, term(key, label)),
    h("dd", { class: isBad ? "bad" : null }, value, note ? h("small", {}, ` ${note}`) : null));
}
