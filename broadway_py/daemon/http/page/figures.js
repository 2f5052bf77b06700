// Figures: how they are written, and the rates between two snapshots. The daemon only sends counts.

// The rates are over about so many snapshots, which are a second apart.
const RATE_OVER = 3;

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return value === null || value === undefined ? "–" : whole.format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value >= 100 ? whole.format(value) : value.toFixed(value >= 10 || value === 0 ? 0 : 1);
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${Math.round(100 * Math.min(1, share))} %`;
}

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) { value /= 1024; step += 1; }
  return `${value >= 10 || step === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[step]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.01 ? 1 : 0)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  if (value < 7200) return `${(value / 60).toFixed(0)} min`;
  return value < 172800 ? `${(value / 3600).toFixed(0)} h` : `${(value / 86400).toFixed(0)} days`;
}

// Returns how long ago something was, in steps that do not change each second.
export function ago(value) {
  if (value < 2) return "now";
  if (value < 60) return `${Math.floor(value)} s ago`;
  return `${seconds(Math.max(120, value))} ago`.replace("2 min", value < 120 ? "1 min" : "2 min");
}

export function clock(wall) {
  return new Date(wall * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

export function byName(list, name) {
  return list?.find((one) => one.name === name);
}

export function perSecond(now, then, elapsed) {
  return then === undefined || elapsed <= 0 ? null : Math.max(0, now - then) / elapsed;
}

// Returns the mean of the values observed between two snapshots of a distribution.
export function meanSince(now, then) {
  if (!now) return null;
  const observed = sum(now.counts) - (then ? sum(then.counts) : 0);
  const total = now.total - (then ? then.total : 0);
  return observed > 0 ? total / observed : null;
}

export function tally(pipeline) {
  const total = {};
  for (const producer of pipeline.producers) {
    for (const [outcome, number] of Object.entries(producer.outcomes)) total[outcome] = (total[outcome] || 0) + number;
  }
  return total;
}

export function settledOf(pipeline) {
  return sum(Object.values(tally(pipeline)));
}

export function failedOf(pipeline) {
  return sum(pipeline.stages.map((stage) => sum(Object.values(stage.failed))));
}

// Returns how many messages of one kind wait in all sources, or null if no source says it.
export function inSources(pipeline, kind) {
  const known = pipeline.producers.map((one) => one.source?.[kind]).filter((value) => value !== null && value !== undefined);
  return known.length ? sum(known) : null;
}

// The last snapshots of each pipeline.
export class Snapshots {
  #kept = new Map();

  // Returns the snapshot that rates count from, and the seconds since then.
  add(pipeline, now) {
    let past = this.#kept.get(pipeline.name) ?? [];
    // Counts that went down are those of a daemon that was started anew.
    if (past.length && settledOf(past.at(-1).pipeline) > settledOf(pipeline)) past = [];
    this.#kept.set(pipeline.name, [...past, { pipeline, at: now }].slice(-RATE_OVER));
    return past.length ? { then: past[0].pipeline, elapsed: now - past[0].at } : { then: undefined, elapsed: 0 };
  }

  forget() {
    this.#kept.clear();
  }
}
