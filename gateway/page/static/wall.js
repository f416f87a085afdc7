// The wall: all devices on one screen that is read from afar, without navigation; more than fit are shown in turn.

import { now } from "./api.js";
import { judge } from "./completeness.js";
import { badge, sorted, summary } from "./devices.js";
import { byId, el, setText } from "./dom.js";
import * as live from "./live.js";
import { clockText, durationText, instant, percentText, t, unitText, valueText } from "./texts.js";

const MOST = 24;
const VALUES = 4;
const TURN = 15_000;
const KINDS = { measurement: 0, state: 1, counter: 2 };
let shown = false;
let page = 0;
let shares = new Map();
let timers = [];

/** The signals that a tile shows: measurements first, then states and counters. */
function chosen(device) {
  return [...live.signals.values()]
    .filter((signal) => signal.device === device.id && signal.kind in KINDS)
    .sort((a, b) => KINDS[a.kind] - KINDS[b.kind])
    .slice(0, VALUES);
}

function tile(device) {
  const lines = chosen(device).map((signal) =>
    el("p", { class: "line", "data-signal": signal.id }, el("span", { class: "what" }, signal.description || signal.name), el("span", { class: "number" })),
  );
  const trouble = device.state === "connected" ? [] : [el("p", { class: "reason" }, device.text), el("p", { class: "fix" }, device.fix)];
  return el(
    "li", { class: "tile", "data-device": device.id, "data-state": device.state },
    el("div", { class: "face" }, el("h2", {}, el("span", {}, device.name), badge(device.state)), ...(trouble.length ? trouble : lines), el("p", { class: "share" })),
  );
}

function paint() {
  for (const node of document.querySelectorAll("#wall-tiles .line")) {
    const known = live.values.get(node.dataset.signal), signal = live.signals.get(node.dataset.signal);
    if (!known || !signal) continue;
    node.dataset.quality = known.quality;
    const text = known.value === null ? t(known.quality === "bad" ? "bad" : "no_value") : `${valueText(known.value, signal)} ${unitText(signal.unit)}`.trim();
    const old = known.seen === null ? "" : now() - known.seen > 60_000 ? ` (${durationText(now() - known.seen)})` : "";
    setText(node.lastChild, text + old);
  }
}

function build() {
  if (!shown) return;
  const all = sorted().filter((device) => device.state !== "retired");
  const count = Math.max(1, Math.ceil(all.length / MOST));
  page %= count;
  const some = all.slice(page * MOST, (page + 1) * MOST);
  const list = byId("wall-tiles");
  list.style.setProperty("--columns", String(Math.max(1, Math.ceil(Math.sqrt(some.length * 1.2)))));
  list.replaceChildren(...some.map(tile));
  setText(byId("wall-summary"), summary());
  setText(byId("wall-page"), count > 1 ? t("page_of", { n: page + 1, all: count }) : "");
  paint();
  showShares();
}

function showShares() {
  for (const node of document.querySelectorAll("#wall-tiles .tile")) {
    const share = shares.get(node.dataset.device);
    const seen = instant(live.devices.get(node.dataset.device)?.last_seen ?? null);
    const ago = node.dataset.state === "connected" ? "" : seen === null ? t("never_seen") : t("seen", { age: durationText(now() - seen) });
    setText(node.querySelector(".share"), [share === undefined || share === null ? "" : `8 h ${percentText(share)}`, ago].filter(Boolean).join(" · "));
  }
}

async function judgeAll() {
  try {
    const found = await judge();
    shares = new Map(found.map((item) => [item.device.id, item.share]));
    const known = found.filter((item) => item.share !== null);
    const mean = known.reduce((sum, item) => sum + item.share, 0) / known.length;
    setText(byId("wall-complete"), known.length ? t("all_complete", { percent: percentText(mean) }) : "");
    showShares();
  } catch {
    // the notice of the connection says so; the next round asks again
  }
}

function refresh() {
  const ids = [...document.querySelectorAll("#wall-tiles .line")].map((node) => node.dataset.signal);
  if (ids.length) live.refresh(ids).catch(() => {});
  live.loadDevices().catch(() => {});
}

export function show() {
  shown = true;
  document.body.classList.add("wall");
  build();
  if (live.devices.size) judgeAll();
  timers = [
    setInterval(() => setText(byId("wall-clock"), clockText(now())), 500),
    setInterval(refresh, 5000),
    setInterval(judgeAll, 30_000),
    setInterval(() => ((page += 1), build()), TURN),
  ];
}
export function hide() {
  shown = false;
  document.body.classList.remove("wall");
  timers.forEach(clearInterval);
}
export function start() {
  live.on("catalog", () => {
    build();
    if (shown && !shares.size) judgeAll();
  });
  live.on("values", () => shown && paint());
  document.addEventListener("keydown", (event) => {
    if (shown && event.key === "Escape") location.hash = "#/devices";
  });
}
