// What the page knows of the workshop: devices, signals and latest values, kept up to date by the live stream.

import { get, pages, stream } from "./api.js";
import { instant } from "./texts.js";

export const devices = new Map();
export const signals = new Map();
/** Signal id -> {value, status, text, quality, ts, seen, last, reason}; times in ms. */
export const values = new Map();

const events = new EventTarget();
const changed = new Set();
let frame = 0;

/** Tells `catalog` (devices or signals), `values` (detail: set of signal ids, once in a frame), `happening`, `stream` (detail: state). */
export const on = (name, callback) => events.addEventListener(name, (event) => callback(event.detail));
const tell = (name, detail) => events.dispatchEvent(new CustomEvent(name, { detail }));

function touch(id) {
  changed.add(id);
  if (!frame) {
    frame = requestAnimationFrame(() => {
      frame = 0;
      const ids = new Set(changed);
      changed.clear();
      tell("values", ids);
    });
  }
}

function takeLatest(item) {
  values.set(item.signal, {
    value: item.value, status: item.status, text: item.status_text, quality: item.quality, ts: instant(item.ts),
    seen: instant(item.seen_at), last: item.last ?? null, reason: item.reason ?? "",
  });
  touch(item.signal);
}

function takeReading(item) {
  const ts = instant(item.ts);
  const known = values.get(item.signal);
  if (known && known.ts !== null && known.ts > ts && !known.last) return;
  const text = known && known.status === item.status ? known.text : "";
  values.set(item.signal, { value: item.value, status: item.status, text, quality: item.quality, ts, seen: ts, last: null, reason: "" });
  touch(item.signal);
}

const catalogOf = () => [...devices.values()].map((item) => `${item.id} ${item.signals} ${item.changed_at}`).join("\n");
let catalog = null; // what the devices were when their signals were read

/** Reads all devices anew: states with their reasons and fixes; and the signals, if those of a device may have changed.
 *  With `quietly` nobody is told. */
export async function loadDevices({ quietly = false } = {}) {
  const found = new Map();
  for await (const page of pages("devices")) for (const item of page.items) found.set(item.id, item);
  devices.clear();
  for (const [id, item] of found) devices.set(id, item);
  if (!quietly) tell("catalog");
  if (catalog !== null && catalog !== catalogOf()) await loadSignals();
}

async function loadSignals() {
  const read = catalogOf();
  const found = new Map();
  for await (const page of pages("signals", { limit: 5000 })) for (const item of page.items) found.set(item.id, item);
  signals.clear();
  for (const [id, item] of found) signals.set(id, item);
  catalog = read;
  tell("catalog");
}

/** Both at once, when nothing is known yet. */
async function loadAll() {
  catalog = null;
  await Promise.all([loadDevices(), loadSignals()]);
  catalog = catalogOf();
}

/** Asks for the latest values of some signals: what the stream does not tell is when an unchanged value was last seen. */
export async function refresh(ids) {
  for (let at = 0; at < ids.length; at += 100) {
    const answer = await get("latest", { signal: ids.slice(at, at + 100), int64: "string" });
    answer.items.forEach(takeLatest);
  }
}

let pendingDevices = 0;
function devicesSoon() {
  pendingDevices ||= setTimeout(async () => {
    pendingDevices = 0;
    await loadDevices().catch(ignored);
    const away = [...values.keys()].filter((id) => devices.get(id.slice(0, id.indexOf("/")))?.state !== "connected");
    await refresh(away.slice(0, 1000)).catch(ignored);
  }, 250);
}
// a failure is shown by the notice of the connection, and the next word of the stream asks again
const ignored = () => {};

function take(name, data) {
  if (name === "snapshot") {
    data.items.forEach(takeLatest);
    if (!data.more && (data.items.some((item) => !signals.has(item.signal)) || data.devices.some((item) => !devices.has(item.device)))) {
      loadAll().catch(ignored);
    }
  } else if (name === "change") {
    data.readings?.forEach(takeReading);
    if (data.devices?.length) devicesSoon();
    if (data.events?.length) tell("happening");
    if (data.readings?.some((item) => !signals.has(item.signal))) loadSignals().catch(ignored);
  }
}

const wait = (ms) => new Promise((done) => setTimeout(done, ms));
let lastId = null;
let aborter = null;
let following = false;

document.addEventListener("visibilitychange", () => document.hidden && aborter?.abort());

/** Runs for ever: follows the stream while the page can be seen, and comes back to it with what was missed. */
export async function follow() {
  if (following) return;
  following = true;
  for (let failures = 0; ; ) {
    while (document.hidden) await wait(200);
    aborter = new AbortController();
    try {
      await loadAll();
      await stream(lastId, (name, data, id) => {
        failures = 0;
        tell("stream", "ok");
        if (data) take(name, data);
        if (id) lastId = id;
      }, aborter.signal);
    } catch (error) {
      if (error.status === 401) break;
    }
    tell("stream", "lost");
    if (!document.hidden) await wait(Math.min(1000 * 2 ** failures, 15000));
    failures += 1;
  }
  following = false;
}
