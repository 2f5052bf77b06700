// What each figure means, and the tooltip that says it: for the mouse, the keyboard and screen readers.

import { h } from "./dom.js";

const EXPLANATIONS = {
  settled_rate: "Messages that got their outcome, for each second, over the last three seconds.",
  settled: "All messages that got their outcome since the daemon was started.",
  failed_rate: "Messages that failed, for each second, over the last three seconds. A message that is tried again counts each time.",
  in_flight: "Messages that were received and have no outcome yet, and how many bytes their payloads have.",
  oldest: "How long the oldest message in flight has been here. If it grows all the time, a handler hangs.",
  latency: "Of the messages that were settled in the last seconds: half took at most the first time from arrival to outcome, and 99 % at most the second.",
  waiting: "Messages that wait in the source and may be handed out. Asked for at most every ten seconds.",
  delayed: "Messages that wait in the source for the end of a delay, such as a retry.",
  dead: "Dead letters of this source: messages that were given up. The command broadway dlq shows them and puts them back.",
  state: "What the pipeline does. “not ready” means that it takes no messages in, or not from all sources.",
  processors: "How busy each processor was in the last five seconds or so. Many full bars: more processors may help, if the work is waiting.",
  busy: "The share of time in which the stage was at work.",
  held_back: "The share of time in which the stage had finished work that the next stage did not take.",
  queued: "Messages that wait in front of this stage.",
  chunk: "How long the handling of one chunk of messages takes, on average over the last three seconds.",
  takes: "How long one call takes, on average over the last three seconds.",
  batch_of: "The mean size of the batches of the last three seconds.",
  redelivered: "Messages that the source said it had delivered before.",
  lost: "How often a connection to the source was lost.",
  up: "How many of the connections of this stage are up.",
  failures: "The kinds of failures that messages had lately. Neither the text of the error nor the message is shown: the log has the text with log.errors: text.",
  failure_next: "What happened to the last message of this kind after it failed.",
  watermark: "The event time up to which everything is believed to have come. Windows that end before it are complete.",
  held_by: "What keeps the watermark from going on, and for how long it has done so.",
  windows: "Windows that are open, counted for each key.",
  not_stored: "Messages that are added and not stored yet. They are acknowledged when they are stored.",
  checkpoints: "How often what has changed was stored.",
  late: "Messages that came after their window had closed.",
  pending: "Results that are due, or stored, and that nobody has taken yet.",
  workers: "The processes that run the pipelines. A worker that dies is started again.",
  breaker: "Too many messages failed, so the pipeline stopped fetching. It tries one message now and then, and goes on when one succeeds.",
  history: "The last 30 minutes, with one point every five seconds. Point at a chart, or use the arrow keys in it, to read a moment.",
  settings: "All settings with their defaults, as they hold now. Secrets are hidden.",
};

// Returns a label that explains itself.
export function term(key, label) {
  return h("button", { type: "button", class: "term", "aria-describedby": `about-${key}` }, label);
}

// Puts the texts into the page, where screen readers find them, and lets them appear beside their labels.
export function startTooltips() {
  const texts = document.createElement("div");
  texts.hidden = true;
  for (const [key, text] of Object.entries(EXPLANATIONS)) {
    const one = document.createElement("p");
    one.id = `about-${key}`;
    one.textContent = text;
    texts.append(one);
  }
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  // Screen readers have the text from aria-describedby.
  tip.setAttribute("aria-hidden", "true");
  document.body.append(texts, tip);
  let owner = null;

  const hide = () => {
    owner = null;
    tip.hidden = true;
  };
  const appear = (event) => {
    const label = event.target.closest?.(".term");
    if (!label || label === owner) return;
    owner = label;
    tip.textContent = document.getElementById(label.getAttribute("aria-describedby"))?.textContent ?? "";
    tip.hidden = tip.textContent === "";
    place(tip, label);
  };
  document.addEventListener("pointerover", appear);
  document.addEventListener("focusin", appear);
  document.addEventListener("click", appear);
  document.addEventListener("pointerout", (event) => {
    if (owner && event.target.closest?.(".term") === owner && document.activeElement !== owner) hide();
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", () => { if (owner) place(tip, owner); }, { passive: true });
}

function place(tip, label) {
  const at = label.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  const below = at.bottom + 6;
  const isRoom = below + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${isRoom ? below : Math.max(8, at.top - tip.offsetHeight - 6)}px`;
}
