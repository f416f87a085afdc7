// The view of live values. Rows are made once for a filter; only those that can be seen are kept up to date, once in a frame.

import { now } from "./api.js";
import { show as showDialog } from "./dialog.js";
import { byId, el, fillOptions, setText } from "./dom.js";
import { showFailure } from "./failure.js";
import * as live from "./live.js";
import { testRead } from "./looks.js";
import { readingBox } from "./reading.js";
import { durationText, t, timeText, unitText, valueText } from "./texts.js";

const MOST = 5000;
const rows = new Map();
const visible = new Set();
let shown = false;
let made = "";
let watcher = null;

function row(signal) {
  const cells = ["value", "quality", "age", "time"].map((name) => el("span", { class: name, role: "cell" }));
  const link = el("a", { href: `#/trend?signal=${encodeURIComponent(signal.id)}` }, signal.id);
  const node = el(
    "div", { class: "row", role: "row", "data-signal": signal.id },
    el("span", { class: "name", role: "cell" }, link, el("small", {}, signal.description)), ...cells,
    el("span", { class: "do", role: "cell" }, el("button", { type: "button", "aria-label": t("test_read_of", { signal: signal.id }) }, t("read"))),
  );
  return { node, signal, cells };
}

/** Asks the device itself, now, and shows what it says beside what is stored. */
async function read(signal) {
  const place = el("div", { role: "status" }, el("p", { class: "hint" }, t("reading")));
  showDialog(t("test_read_of", { signal: signal.id }), place);
  try {
    const told = await testRead({ signal: signal.id });
    place.replaceChildren(readingBox(told));
  } catch (error) {
    showFailure(place, error);
  }
}

/** Writes what is known of the signal into its row. */
function paint({ node, signal, cells: [value, quality, , time] }) {
  const known = live.values.get(signal.id);
  if (!known) return;
  const unit = unitText(signal.unit);
  const text = valueText(known.value, signal);
  if (known.last) setText(value, known.value === null ? t("last_was", { value: `${valueText(known.last.value, signal)} ${unit}`.trim() }) : `${text} ${unit}`.trim());
  else setText(value, known.value === null ? t("no_value") : `${text} ${unit}`.trim());
  if (node.dataset.quality !== known.quality) node.dataset.quality = known.quality;
  setText(quality, known.quality !== "good" && known.text ? `${t(known.quality)}: ${known.text}` : t(known.quality));
  setText(time, timeText(known.ts));
  paintAge(signal.id);
}

function paintAge(id) {
  const known = live.values.get(id);
  const cell = rows.get(id)?.cells[2];
  if (cell && known) setText(cell, known.seen === null ? "—" : durationText(now() - known.seen));
}

function wanted() {
  const form = byId("values-filters").elements;
  const words = form.text.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const signal of live.signals.values()) {
    if (form.device.value && signal.device !== form.device.value) continue;
    if (form.quality.value && live.values.get(signal.id)?.quality !== form.quality.value) continue;
    const text = `${signal.id} ${signal.description} ${unitText(signal.unit)} ${live.devices.get(signal.device)?.name ?? ""}`.toLowerCase();
    if (words.every((word) => text.includes(word))) found.push(signal);
  }
  return found;
}

function build() {
  if (!shown) return;
  fillOptions(byId("values-filters").elements.device, [...live.devices.values()].map((item) => [item.id, item.name]));
  if (pendingDevice !== null && live.devices.size) {
    byId("values-filters").elements.device.value = pendingDevice;
    pendingDevice = null;
  }
  const all = wanted();
  const some = all.slice(0, MOST);
  const count = some.length < all.length ? "narrow" : "shown_of";
  setText(byId("values-count"), t(count, { shown: some.length, all: count === "narrow" ? all.length : live.signals.size }));
  const key = some.map((signal) => `${signal.id} ${signal.unit} ${signal.description}`).join("\n");
  if (key === made) return;
  made = key;
  watcher?.disconnect();
  rows.clear();
  visible.clear();
  for (const signal of some) rows.set(signal.id, row(signal));
  const target = byId("values-rows");
  if (some.length) target.replaceChildren(...[...rows.values()].map((item) => item.node));
  else target.replaceChildren(el("div", { class: "row empty", role: "row" }, el("span", { role: "cell" }, t("nothing_found"))));
  watcher = new IntersectionObserver(seen, { rootMargin: "100px" });
  for (const { node } of rows.values()) watcher.observe(node);
}

function seen(entries) {
  for (const { target, isIntersecting } of entries) {
    const id = target.dataset.signal;
    if (!isIntersecting) visible.delete(id);
    else if (rows.get(id)?.node === target) {
      visible.add(id);
      paint(rows.get(id));
    }
  }
}

let pendingDevice = null;

export function show(query) {
  shown = true;
  if (query.has("device")) pendingDevice = query.get("device");
  build();
  for (const id of visible) paint(rows.get(id));
}
export const hide = () => (shown = false);

export function start() {
  const form = byId("values-filters");
  form.addEventListener("input", build);
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("values-rows").addEventListener("click", (event) => {
    const id = event.target.closest(".do button")?.closest(".row").dataset.signal;
    if (id) read(live.signals.get(id));
  });
  live.on("catalog", build);
  live.on("values", (ids) => {
    if (!shown) return;
    for (const id of ids) if (visible.has(id)) paint(rows.get(id));
  });
  setInterval(() => {
    if (!shown) return;
    if (byId("values-filters").elements.quality.value) build();
    for (const id of visible) paintAge(id);
  }, 1000);
  setInterval(() => shown && visible.size && live.refresh([...visible]).catch(() => {}), 3000);
}
