// The live page: asks the daemon each second, and shows what has changed.

import { Histories } from "./charts.js";
import { access, read } from "./daemon.js";
import { show } from "./dom.js";
import { startTooltips } from "./explanations.js";
import { Snapshots, clock, failedOf, perSecond, settledOf } from "./figures.js";
import { overview, shownInFull } from "./overview.js";
import { settings, workersPanel } from "./panels.js";
import { pipelineCard } from "./pipeline.js";

const EVERY_MS = 1000;
// What changes slowly is asked for in each fifth round, and when the daemon comes back.
const SLOWLY = 5;

const snapshots = new Snapshots();
const figures = new Map();
const histories = new Histories();
let pipelines = null;
let round = 0;
// When the daemon stopped to answer, and its version when the page was loaded.
let awaySince = null;
let version = null;
// The clock of the daemon less that of this machine, in seconds.
let ahead = 0;

const page = {
  access: null, workers: null, settings: null, histories, repaint: paint,
  now: () => Date.now() / 1000 + ahead,
  loadSettings: async () => {
    page.settings = await read("api/settings").catch(() => page.settings);
    paint();
  },
};

async function update() {
  try {
    const told = await read("api/pipelines");
    const isSlow = round % SLOWLY === 0 || awaySince !== null;
    if (isSlow) await updateSlowly();
    round += 1;
    ahead = told.now - Date.now() / 1000;
    take(told);
    awaySince = null;
  } catch {
    awaySince ??= new Date();
    round = 0;
  }
  paint();
}

async function updateSlowly() {
  // A reload may change them.
  const areSettingsOpen = document.querySelector("details.panel[open]") !== null;
  const [allowed, { workers }, points, values] = await Promise.all([
    access(), read("api/workers"), read(`api/history?since=${histories.newest}`), areSettingsOpen ? read("api/settings") : null]);
  page.access = allowed;
  if (values !== null) page.settings = values;
  page.workers = workers;
  if (histories.add(points)) histories.add(await read("api/history"));
}

function take(told) {
  if (version !== null && version !== told.version) location.reload(); // the page is of another version than the daemon
  version = told.version;
  if (awaySince !== null) snapshots.forget();
  const now = performance.now() / 1000;
  ({ pipelines } = told);
  for (const one of pipelines) {
    const { then, elapsed } = snapshots.add(one, now);
    figures.set(one.name, {
      then, elapsed,
      settledRate: perSecond(settledOf(one), then && settledOf(then), elapsed),
      failedRate: perSecond(failedOf(one), then && failedOf(then), elapsed),
    });
  }
}

function paint() {
  showStatus();
  if (pipelines === null) return;
  show(document.getElementById("pipelines"),
    overview(pipelines, figures, histories, paint),
    shownInFull(pipelines).map((one) => pipelineCard(one, figures.get(one.name), page)),
    page.workers ? workersPanel(page.workers, page.now()) : null,
    settings("Settings of the daemon", page.settings && { ...page.settings, pipelines: undefined }, page.loadSettings));
}

function showStatus() {
  const status = document.getElementById("status");
  const notReady = pipelines === null ? 0 : pipelines.filter((one) => one.reasons.length).length;
  let text = "connecting …";
  if (awaySince !== null) text = `No answer from the daemon since ${awaySince.toLocaleTimeString()}. Trying again each second.`;
  else if (notReady) text = `${notReady} of ${pipelines.length} not ready`;
  else if (pipelines !== null) text = `${pipelines.length} ${pipelines.length === 1 ? "pipeline" : "pipelines"}, all ready`;
  show(status, text);
  status.className = awaySince !== null || notReady ? "lost" : "";
  document.body.classList.toggle("away", awaySince !== null);
  document.title = awaySince !== null ? "no answer · Broadway" : notReady ? "not ready · Broadway" : "Broadway";
  if (version !== null && awaySince === null) {
    show(document.getElementById("footer"), `broadway ${version} · rates over the last three seconds · updated ${clock(page.now())}`);
  }
}

async function follow() {
  if (!document.hidden) await update();
  setTimeout(follow, EVERY_MS);
}

addEventListener("hashchange", paint);
startTooltips();
follow();
