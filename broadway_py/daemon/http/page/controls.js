// The controls of a pipeline: pause, rate limit, number of processors, replay of dead letters. The token is asked for once.

import { command, forgetToken, hasToken, keepToken } from "./daemon.js";
import { h } from "./dom.js";
import { count } from "./figures.js";

// What the last command of each pipeline came to.
const results = new Map();
const busy = new Set();

// Returns the controls of a pipeline. `page` says whether they may be used, and is shown anew when something has changed.
export function controls(pipeline, page) {
  const { name } = pipeline;
  const { access, workers, repaint } = page;
  const isPaused = pipeline.state === "paused";
  const runs = isPaused || pipeline.state === "running";
  const refusal = access === null ? "The daemon has not said yet whether this page may control it." : access.control === "refused" ? access.why : null;
  const isOff = refusal !== null;
  const send = (what, body, said) => carryOut(name, what, body, said, access, repaint);
  const result = results.get(name);
  const why = `why-${encodeURIComponent(name)}`;
  // While a command is under way, the button is not disabled: it would lose the focus.
  const button = (label, what, isUseless) => h("button", {
    key: "button", type: "button", disabled: isOff || isUseless ? "" : null, "aria-describedby": refusal ? why : null,
    "aria-busy": busy.has(name) ? "true" : null,
    onclick: () => send(what, {}, { pause: "Paused.", resume: "Resumed." }[what]),
  }, label);
  return h("div", { key: "controls", class: "controls" },
    button(isPaused ? "Resume" : "Pause", isPaused ? "resume" : "pause", !runs),
    h("details", { key: "change", class: "change" }, h("summary", {}, "Change …"),
      h("div", { class: "forms" },
        rateLimitForm(pipeline, isOff, send), processorsForm(pipeline, workers ?? [], isOff, send), replayForm(pipeline, isOff, send))),
    refusal ? h("p", { key: "why", id: why, class: "refusal" }, refusal) : null,
    h("p", { key: "result", class: result?.isBad ? "result bad" : "result", role: "status" }, result?.text ?? ""));
}

function form(title, isOff, inputs, hint, onsubmit) {
  return h("form", { key: title, onsubmit: (event) => { event.preventDefault(); onsubmit(event.currentTarget.elements); } },
    h("fieldset", { disabled: isOff ? "" : null }, h("legend", {}, title), inputs,
      h("button", { type: "submit" }, "Apply"), hint ? h("small", {}, hint) : null));
}

function number(name, label, value, attributes = {}) {
  return h("label", { key: name }, `${label} `, h("input", { type: "number", name, value, min: 1, ...attributes }));
}

function rateLimitForm(pipeline, isOff, send) {
  const limit = pipeline.rate_limit;
  if (!limit) return form("Rate limit", true, [], "This pipeline was started without a rate limit, so there is nothing to change.", () => {});
  return form("Rate limit", isOff, [
    number("allowed", "messages", limit.allowed_messages, { required: "" }),
    number("interval", "in seconds", limit.interval_seconds, { required: "", min: 0.001, step: "any" }),
  ], `Now: ${count(limit.allowed_messages)} in ${limit.interval_seconds} s.`, ({ allowed, interval }) =>
    send("rate_limit", { allowed_messages: allowed.valueAsNumber, interval: interval.valueAsNumber }, "The rate limit is changed."));
}

function processorsForm(pipeline, workers, isOff, send) {
  const now = pipeline.processors_busy.length;
  const ofWorkers = workers.map((one) => one.processors_busy[pipeline.name]?.length).filter(Boolean);
  const isShared = ofWorkers.length > 1;
  return form("Processors", isOff,
    [number("processors", isShared ? "in each worker" : "number", ofWorkers[0] ?? now, { required: "", max: 10000 })],
    `Now: ${count(now)}${isShared ? " in all workers" : ""}.`, ({ processors }) =>
      send("concurrency", { processors: processors.valueAsNumber }, "The number of processors is changed."));
}

function replayForm(pipeline, isOff, send) {
  const producers = pipeline.producers.filter((one) => one.copies > 0).map((one) => one.name);
  return form("Put dead letters back", isOff, [
    producers.length > 1 ? h("label", { key: "producer" }, "of ",
      h("select", { name: "producer" }, producers.map((one) => h("option", { key: one }, one)))) : null,
    number("limit", "at most", "", { placeholder: "1000", max: 10000 }),
  ], "The oldest come first. They are handled again.", ({ producer, limit }) =>
    send("replay", { producer: producer?.value ?? null, limit: limit.value === "" ? null : limit.valueAsNumber }, null));
}

async function carryOut(name, what, body, said, access, repaint) {
  if (busy.has(name)) return;
  if (access?.control === "token" && !hasToken() && !(await askForToken("Control needs the token of the daemon."))) return;
  busy.add(name);
  repaint();
  let answer = await command(`api/pipelines/${encodeURIComponent(name)}/${what}`, body);
  if (answer.isTokenRefused) {
    forgetToken();
    if (await askForToken(answer.error)) answer = await command(`api/pipelines/${encodeURIComponent(name)}/${what}`, body);
    if (answer.isTokenRefused) forgetToken();
  }
  busy.delete(name);
  const replayed = answer.told.replayed;
  const done = said ?? `${count(replayed ?? 0)} ${replayed === 1 ? "dead letter was" : "dead letters were"} put back.`;
  results.set(name, answer.done ? { text: done, isBad: false } : { text: answer.error, isBad: true });
  repaint();
}

// Asks for the token. Returns whether one was given. It is kept until the tab is closed.
function askForToken(why) {
  const dialog = document.getElementById("token");
  const input = dialog.querySelector("input");
  dialog.querySelector("p").textContent = why;
  input.value = "";
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const token = input.value.trim();
      input.value = "";
      const isGiven = dialog.returnValue === "give" && token !== "";
      if (isGiven) keepToken(token);
      dialog.returnValue = "";
      resolve(isGiven);
    }, { once: true });
    dialog.showModal();
  });
}
